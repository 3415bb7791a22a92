-- What the following migrations stand on: the three API roles and auth.uid().
--
-- Hosted Supabase and Supabase Lite have both, and this file changes nothing there. On plain PostgreSQL they are made
-- here, so that one set of policies serves everywhere:
--   * the roles cannot log in; a server that is not the owner of the tables gets its rights by membership:
--       create role voice login password '…'; grant service_role to voice;
--   * auth.uid() reads the "sub" of the claims that PostgREST, or `set request.jwt.claims`, puts into the session.
-- The role that migrates needs CREATEROLE on plain PostgreSQL, unless the roles were made beforehand.

do $$
declare
  wanted text;
begin
  foreach wanted in array array['anon', 'authenticated', 'service_role'] loop
    if not exists (select 1 from pg_catalog.pg_roles where rolname = wanted) then
      begin
        execute format('create role %I nologin noinherit', wanted);
      exception
        when duplicate_object or unique_violation then
          null;  -- roles belong to the whole server: a migration of another database was quicker
        when insufficient_privilege then
          raise exception 'role % is missing and may not be created by %', wanted, current_user
            using errcode = 'insufficient_privilege',
                  hint = 'Run the migrations as a role with CREATEROLE, or create the roles anon, authenticated and '
                         'service_role (all nologin) first.';
      end;
    end if;
  end loop;
end
$$;

do $$
begin
  if to_regnamespace('auth') is null then
    create schema auth;
    create function auth.uid() returns uuid
    language sql stable set search_path = ''
    as $uid$
      select nullif(
        coalesce(
          nullif(current_setting('request.jwt.claim.sub', true), ''),
          nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
        ), '')::uuid
    $uid$;
    grant usage on schema auth to anon, authenticated, service_role;
    grant execute on function auth.uid() to anon, authenticated, service_role;
  end if;
end
$$;
