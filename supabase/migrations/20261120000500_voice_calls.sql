-- Calls of subaccounts, and quick removal of calls that are over.
--
-- A subaccount signs with its own token. With a number the Vault id of that token is in phone_numbers; a call that the
-- main app announces for a number we do not know brings it along. Clients never see it: they have column grants.

alter table public.calls add column auth_token_secret_id uuid;
comment on column public.calls.auth_token_secret_id is
  'Vault id of the Twilio token of the account that owns the call; never the token.';

-- The server looks every minute for rows that are too old and for claimed ones that still hold a configuration.
create index calls_created_at_idx on public.calls (created_at);
create index calls_claimed_at_idx on public.calls (claimed_at) where claimed_at is not null;
