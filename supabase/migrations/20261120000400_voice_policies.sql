-- Row level security: which rows. Which commands and columns is said in the privileges file; both must agree.
--
-- (select auth.uid()) is computed once a query; written without the select it is computed once a row.
-- service_role has BYPASSRLS on Supabase. Its policies are for plain PostgreSQL, where a login role that is a member of
-- service_role inherits policies but not attributes.

alter table public.agents enable row level security;
alter table public.phone_numbers enable row level security;
alter table public.calls enable row level security;
alter table public.conversations enable row level security;
alter table public.messages enable row level security;
alter table public.system_api_keys enable row level security;
alter table public.deleted_conversation_costs enable row level security;

create policy agents_select_own on public.agents for select to authenticated
  using (user_id = (select auth.uid()));
create policy agents_insert_own on public.agents for insert to authenticated
  with check (user_id = (select auth.uid()));
create policy agents_update_own on public.agents for update to authenticated
  using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
create policy agents_delete_own on public.agents for delete to authenticated
  using (user_id = (select auth.uid()));

create policy phone_numbers_select_own on public.phone_numbers for select to authenticated
  using (user_id = (select auth.uid()));

create policy calls_select_own on public.calls for select to authenticated
  using (user_id = (select auth.uid()));

create policy conversations_select_own on public.conversations for select to authenticated
  using (user_id = (select auth.uid()));
create policy conversations_delete_own on public.conversations for delete to authenticated
  using (user_id = (select auth.uid()));

create policy messages_select_own on public.messages for select to authenticated
  using (user_id = (select auth.uid()));
create policy messages_delete_own on public.messages for delete to authenticated
  using (user_id = (select auth.uid()));

create policy agents_server on public.agents for all to service_role using (true) with check (true);
create policy phone_numbers_server on public.phone_numbers for all to service_role using (true) with check (true);
create policy calls_server on public.calls for all to service_role using (true) with check (true);
create policy conversations_server on public.conversations for all to service_role using (true) with check (true);
create policy messages_server on public.messages for all to service_role using (true) with check (true);
create policy system_api_keys_server on public.system_api_keys for all to service_role using (true) with check (true);
create policy deleted_conversation_costs_server on public.deleted_conversation_costs for all to service_role
  using (true) with check (true);
