-- Who may do what; every privilege is spelled out. May be run again at any time, and restores exactly this state.
--
-- Hosted projects used to grant everything in "public" to the API roles; since 2026-10-30 new objects get nothing.
-- Revoke first, then grant: right under both defaults.

grant usage on schema public to anon, authenticated, service_role;

revoke all on table
  public.agents, public.phone_numbers, public.calls, public.conversations, public.messages, public.system_api_keys,
  public.deleted_conversation_costs
  from public, anon, authenticated, service_role;

-- Owners: their agents in full, except the key the server uses for them and the row's identity.
grant select, delete on table public.agents to authenticated;
grant insert (id, user_id, name, instructions, greeting, voice, personality, accent, speed, language, model,
              max_output_tokens, temperature, turn_detection, tools, knowledge, call_settings, client_may, is_active)
  on table public.agents to authenticated;
grant update (name, instructions, greeting, voice, personality, accent, speed, language, model, max_output_tokens,
              temperature, turn_detection, tools, knowledge, call_settings, client_may, is_active)
  on table public.agents to authenticated;

-- Owners read and delete what was said; only the server writes it.
grant select, delete on table public.conversations, public.messages to authenticated;

-- Owners see their numbers and calls, without token hashes and Vault ids. Because these are column grants, clients name
-- the columns they want: `select *` is refused.
grant select (number, agent_id, user_id, account_sid, created_at) on table public.phone_numbers to authenticated;
grant select (call_sid, agent_id, user_id, account_sid, from_number, to_number, config, created_at, expires_at,
              claimed_at, ended_at, end_reason)
  on table public.calls to authenticated;

-- The server.
grant select, insert, update, delete on table
  public.agents, public.phone_numbers, public.calls, public.conversations, public.messages, public.system_api_keys,
  public.deleted_conversation_costs
  to service_role;

-- Functions: executable by everybody from birth, and older projects also granted them by name.
revoke execute on function
  public.set_updated_at(), public.keep_deleted_cost(), public.cost_since(uuid, timestamptz),
  public.save_records(jsonb), public.remove_expired(interval), public.get_secret(uuid),
  public.cost_by_day(timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function
  public.cost_since(uuid, timestamptz), public.save_records(jsonb), public.remove_expired(interval),
  public.get_secret(uuid), public.cost_by_day(timestamptz)
  to service_role;

-- The list of applied migrations exists only where `./voice migrate` ran.
do $$
begin
  if to_regclass('public.voice_migrations') is not null then
    alter table public.voice_migrations enable row level security;
    revoke all on table public.voice_migrations from public, anon, authenticated, service_role;
  end if;
end
$$;
