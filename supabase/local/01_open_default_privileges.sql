-- LOCAL AND TEST ONLY. Hosted projects behaved so before 2026-10-30: whatever is made in "public" is open to the API
-- roles. With it a forgotten REVOKE shows; and because the privileges migration revokes first, so does a forgotten GRANT.
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
alter default privileges in schema public grant execute on functions to anon, authenticated, service_role;
