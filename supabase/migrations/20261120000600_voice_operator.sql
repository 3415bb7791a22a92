-- What the operator's page and `./voice sessions` ask: the latest conversations of all users, those that ended for one
-- reason, and the cost of each day. Only service_role may ask (privileges file).

create index conversations_last_active_at_idx on public.conversations (last_active_at desc);
create index conversations_end_reason_idx on public.conversations (end_reason, last_active_at desc);

-- What conversations last active on each day (UTC) cost, in US dollars; days without one are left out.
create or replace function public.cost_by_day(since timestamptz)
returns table (day text, conversations bigint, cost_usd numeric)
language sql stable set search_path = ''
as $$
  select to_char(c.last_active_at at time zone 'UTC', 'YYYY-MM-DD'), count(*), sum(c.cost_usd)
    from public.conversations c
   where c.last_active_at >= since
   group by 1
   order by 1;
$$;
