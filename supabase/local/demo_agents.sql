-- DEMO ONLY, run by `./voice demo --supabase`: whoever signs up gets copies of the demo user's agents, so that there is
-- somebody to talk to at once. An app makes agents for its users itself.
create function public.demo_agents_for_new_user() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  insert into public.agents (user_id, name, instructions, greeting, voice, personality, accent, speed, language, model,
                             max_output_tokens, turn_detection, tools, knowledge, call_settings, client_may)
  select new.id, a.name, a.instructions, a.greeting, a.voice, a.personality, a.accent, a.speed, a.language, a.model,
         a.max_output_tokens, a.turn_detection, a.tools, a.knowledge, a.call_settings, a.client_may
    from public.agents a
    join auth.users u on u.id = a.user_id
   where u.email = 'demo@example.com';
  return null;
end
$$;
revoke execute on function public.demo_agents_for_new_user() from public, anon, authenticated, service_role;

create trigger demo_agents_for_new_user after insert on auth.users
  for each row execute function public.demo_agents_for_new_user();
