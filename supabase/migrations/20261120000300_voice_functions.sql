-- Functions and triggers. Who may execute them is said in the privileges file; a function is executable by everybody
-- from birth, so that file must always be run too.

-- Keeps updated_at true whatever the writer sends.
create or replace function public.set_updated_at() returns trigger
language plpgsql set search_path = ''
as $$
begin
  new.updated_at := now();
  return new;
end
$$;

create trigger agents_updated_at before update on public.agents
  for each row execute function public.set_updated_at();
create trigger system_api_keys_updated_at before update on public.system_api_keys
  for each row execute function public.set_updated_at();

-- Keeps the cost of a conversation its owner deletes, for the budget of the day.
create or replace function public.keep_deleted_cost() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  insert into public.deleted_conversation_costs as kept (conversation_id, user_id, last_active_at, cost_usd)
  values (old.id, old.user_id, old.last_active_at, old.cost_usd)
  on conflict (conversation_id) do update
    set cost_usd = greatest(kept.cost_usd, excluded.cost_usd), last_active_at = excluded.last_active_at;
  return null;
end
$$;

create trigger conversations_keep_cost after delete on public.conversations
  for each row when (old.cost_usd > 0) execute function public.keep_deleted_cost();

-- What a user's conversations active since a time cost, in US dollars, deleted ones included.
create or replace function public.cost_since(owner uuid, since timestamptz) returns numeric
language sql stable set search_path = ''
as $$
  select coalesce(sum(costs.cost_usd), 0)
    from (
      select c.cost_usd from public.conversations c where c.user_id = owner and c.last_active_at >= since
      union all
      select d.cost_usd from public.deleted_conversation_costs d where d.user_id = owner and d.last_active_at >= since
    ) costs;
$$;

-- Stores records in order and in one transaction; those that are there already change nothing.
-- records: list of {"kind": "conversation" | "message" | "progress", "columns": {…}}, columns as in core/records.py.
create or replace function public.save_records(records jsonb) returns void
language plpgsql set search_path = ''
as $$
declare
  entry jsonb;
begin
  for entry in select e.value from jsonb_array_elements(records) with ordinality as e (value, place) order by e.place loop
    case entry ->> 'kind'
      when 'conversation' then
        insert into public.conversations (id, user_id, agent_id, channel, call_sid, title, started_at, last_active_at)
        select r.id, r.user_id, r.agent_id, r.channel, r.call_sid, r.title, r.started_at, r.started_at
          from jsonb_to_record(entry -> 'columns') as r (
            id uuid, user_id uuid, agent_id uuid, channel text, call_sid text, title text, started_at timestamptz)
        on conflict (id) do nothing;
      when 'message' then
        insert into public.messages (id, conversation_id, user_id, item_id, position, role, content, status, heard_ms,
                                     spoken_ms, metadata, created_at)
        select r.id, r.conversation_id, r.user_id, r.item_id, r.position, r.role, r.content, r.status, r.heard_ms,
               r.spoken_ms, r.metadata, r.created_at
          from jsonb_to_record(entry -> 'columns') as r (
            id uuid, conversation_id uuid, user_id uuid, item_id text, position integer, role text, content text,
            status text, heard_ms integer, spoken_ms integer, metadata jsonb, created_at timestamptz)
        on conflict (conversation_id, item_id) do nothing;
      when 'progress' then
        update public.conversations c
           set last_active_at = r.last_active_at, turn_count = r.turn_count, usage = r.usage, cost_usd = r.cost_usd,
               ended_at = r.ended_at, end_reason = r.end_reason
          from jsonb_to_record(entry -> 'columns') as r (
            id uuid, user_id uuid, last_active_at timestamptz, turn_count integer, usage jsonb, cost_usd numeric,
            ended_at timestamptz, end_reason text)
         where c.id = r.id and c.user_id = r.user_id and c.last_active_at <= r.last_active_at;
      else
        raise exception 'unknown kind of record' using errcode = 'invalid_parameter_value';
    end case;
  end loop;
end
$$;

-- Removes what calls no longer need and returns how many rows it deleted. Run it hourly, by the server or by pg_cron:
--   select cron.schedule('voice-expiry', '17 * * * *', 'select public.remove_expired()');
-- An unclaimed configuration goes at expires_at. After its end, or 24 h after it was claimed (the longest call Twilio
-- holds), a call keeps neither configuration nor token; the row itself, which holds phone numbers, goes after `keep`.
create or replace function public.remove_expired(keep interval default interval '30 days') returns integer
language plpgsql set search_path = ''
as $$
declare
  removed integer;
begin
  delete from public.calls
   where (claimed_at is null and expires_at < now()) or created_at < now() - keep;
  get diagnostics removed = row_count;
  update public.calls set config = '{}'::jsonb, token_hash = null
   where (ended_at is not null or claimed_at < now() - interval '24 hours')
     and (config <> '{}'::jsonb or token_hash is not null);
  delete from public.deleted_conversation_costs where last_active_at < now() - interval '2 days';
  return removed;
end
$$;

-- The plain text of a Vault secret, one row, none when there is no such secret.
-- Without the Vault it says so when it is called, and needs no change when the Vault is installed later.
create or replace function public.get_secret(secret_id uuid) returns table (key text)
language plpgsql stable security definer set search_path = ''
as $$
begin
  if to_regclass('vault.decrypted_secrets') is null then
    raise exception 'Supabase Vault is not installed in this database'
      using errcode = 'feature_not_supported',
            hint = 'Install the extension supabase_vault, or give the server OPENAI_API_KEY.';
  end if;
  return query select d.decrypted_secret from vault.decrypted_secrets d where d.id = secret_id;
end
$$;
