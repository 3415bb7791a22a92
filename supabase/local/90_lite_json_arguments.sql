-- LOCAL AND TEST ONLY, run after the migrations. Supabase Lite 0.10 hands a JSON argument of a function over as a JSON
-- text ("[…]" in quotes); PostgREST hands over the value. The migrated function stays as it is behind a wrapper that
-- takes either.
do $$
begin
  if to_regprocedure('public.save_records(jsonb)') is not null then
    alter function public.save_records(jsonb) rename to save_records_as_migrated;
    create function public.save_records(records jsonb) returns void
    language sql set search_path = ''
    as $wrapper$
      select public.save_records_as_migrated(
        case jsonb_typeof(records) when 'string' then (records #>> '{}')::jsonb else records end);
    $wrapper$;
  end if;
end
$$;
