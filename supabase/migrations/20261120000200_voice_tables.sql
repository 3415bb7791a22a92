-- Tables of the voice server. The same tables for SQLite are in services/sql_store/tables.py; a test compares the two.
--
-- Ownership is part of the keys: a conversation refers to (agent, owner), a message to (conversation, owner). A row that
-- claims another user's parent is a foreign key violation, whoever writes it.

create table public.agents (
  id                 uuid primary key default gen_random_uuid(),
  user_id            uuid not null default auth.uid(),
  name               text not null default 'Agent',
  instructions       text not null default '',
  greeting           text not null default '',
  voice              text not null default 'alloy',
  personality        text not null default '',
  accent             text not null default '',
  speed              real not null default 1.0,
  language           text not null default '',
  model              text not null default '',
  max_output_tokens  integer,
  temperature        real,
  turn_detection     jsonb,
  tools              jsonb not null default '[]'::jsonb,
  knowledge          jsonb not null default '[]'::jsonb,
  call_settings      jsonb not null default '{}'::jsonb,
  client_may         jsonb,
  api_key_secret_id  uuid,
  is_active          boolean not null default true,
  created_at         timestamptz not null default now(),
  updated_at         timestamptz not null default now(),
  constraint agents_owner_key unique (id, user_id),
  constraint agents_speed_check check (speed between 0.25 and 1.5),
  constraint agents_max_output_tokens_check check (max_output_tokens between 1 and 4096)
);
create index agents_user_id_idx on public.agents (user_id);
comment on column public.agents.temperature is 'Accepted and ignored: the GA Realtime API has no such parameter.';
comment on column public.agents.api_key_secret_id is
  'Vault id of an OpenAI key of this agent''s own; null: the key of system_api_keys.';
comment on column public.agents.client_may is
  'What clients may change in their session: list of names, or object of name to true or false; null: the default.';

create table public.phone_numbers (
  number                text primary key,
  agent_id              uuid not null,
  user_id               uuid not null,
  account_sid           text,
  auth_token_secret_id  uuid,
  created_at            timestamptz not null default now(),
  constraint phone_numbers_number_check check (number ~ '^\+[1-9][0-9]{1,14}$'),
  constraint phone_numbers_agent_fkey foreign key (agent_id, user_id)
    references public.agents (id, user_id) on delete cascade
);
create index phone_numbers_user_id_idx on public.phone_numbers (user_id);
create index phone_numbers_agent_id_idx on public.phone_numbers (agent_id);
comment on column public.phone_numbers.number is 'E.164, such as +14155550100.';
comment on column public.phone_numbers.auth_token_secret_id is 'Vault id of the Twilio token; never the token.';

create table public.calls (
  call_sid     text primary key,
  agent_id     uuid not null,
  user_id      uuid not null,
  account_sid  text,
  from_number  text,
  to_number    text,
  config       jsonb not null default '{}'::jsonb,
  token_hash   text,
  created_at   timestamptz not null default now(),
  expires_at   timestamptz not null default now() + interval '300 seconds',
  claimed_at   timestamptz,
  ended_at     timestamptz,
  end_reason   text,
  constraint calls_agent_fkey foreign key (agent_id, user_id)
    references public.agents (id, user_id) on delete cascade
);
create index calls_user_id_idx on public.calls (user_id);
create index calls_agent_id_idx on public.calls (agent_id);
create index calls_expires_at_idx on public.calls (expires_at);
comment on table public.calls is
  'Configuration of one call, put here before Twilio opens the stream; remove_expired() empties and deletes rows.';

create table public.conversations (
  id              uuid primary key default gen_random_uuid(),
  user_id         uuid not null,
  agent_id        uuid not null,
  channel         text not null,
  call_sid        text,
  title           text,
  started_at      timestamptz not null default now(),
  last_active_at  timestamptz not null default now(),
  ended_at        timestamptz,
  end_reason      text,
  turn_count      integer not null default 0,
  usage           jsonb not null default '{}'::jsonb,
  cost_usd        numeric(14, 6) not null default 0,
  constraint conversations_owner_key unique (id, user_id),
  constraint conversations_channel_check check (channel in ('browser', 'phone')),
  constraint conversations_turn_count_check check (turn_count >= 0),
  constraint conversations_cost_usd_check check (cost_usd >= 0),
  constraint conversations_agent_fkey foreign key (agent_id, user_id)
    references public.agents (id, user_id) on delete cascade
);
create index conversations_user_id_idx on public.conversations (user_id, last_active_at desc);
create index conversations_agent_id_idx on public.conversations (agent_id);
create index conversations_call_sid_idx on public.conversations (call_sid);
comment on column public.conversations.cost_usd is 'Total over all sessions of the conversation, in US dollars.';

create table public.messages (
  id               uuid primary key default gen_random_uuid(),
  conversation_id  uuid not null,
  user_id          uuid not null,  -- copied from the conversation so that the policy needs no join
  item_id          text not null,
  position         integer not null,
  role             text not null,
  content          text not null default '',
  status           text not null default 'complete',
  heard_ms         integer,
  spoken_ms        integer,
  metadata         jsonb not null default '{}'::jsonb,
  created_at       timestamptz not null default now(),
  constraint messages_item_key unique (conversation_id, item_id),
  constraint messages_role_check check (role in ('user', 'assistant', 'tool', 'system')),
  constraint messages_status_check check (status in ('complete', 'interrupted', 'failed')),
  constraint messages_position_check check (position >= 0),
  constraint messages_conversation_fkey foreign key (conversation_id, user_id)
    references public.conversations (id, user_id) on delete cascade
);
create index messages_user_id_idx on public.messages (user_id);
create index messages_position_idx on public.messages (conversation_id, position);
comment on column public.messages.item_id is 'Id of the Realtime conversation item; with conversation_id the key of writes.';
comment on column public.messages.content is 'What was said; of an interrupted answer only what was heard.';

create table public.system_api_keys (
  id               uuid primary key default gen_random_uuid(),
  provider_name    text not null,
  display_name     text not null default '',
  vault_secret_id  uuid,
  is_active        boolean not null default true,
  created_at       timestamptz not null default now(),
  updated_at       timestamptz not null default now(),
  constraint system_api_keys_provider_name_key unique (provider_name)
);

create table public.deleted_conversation_costs (
  conversation_id  uuid primary key,
  user_id          uuid not null,
  last_active_at   timestamptz not null,
  cost_usd         numeric(14, 6) not null
);
create index deleted_conversation_costs_user_id_idx
  on public.deleted_conversation_costs (user_id, last_active_at desc);
comment on table public.deleted_conversation_costs is
  'What a deleted conversation cost, kept two days: otherwise deleting one''s conversations would refill the daily budget.';

-- Accounts: where Supabase keeps users in this database, deleting an account deletes everything of its owner.
-- Messages and calls follow through their parents. Plain PostgreSQL has no auth.users and the user ids stand alone.
do $$
begin
  if to_regclass('auth.users') is not null then
    alter table public.agents add constraint agents_user_id_fkey
      foreign key (user_id) references auth.users (id) on delete cascade;
  end if;
end
$$;
