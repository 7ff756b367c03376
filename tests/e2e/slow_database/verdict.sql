-- A write is an inversion if some earlier version of its order was not written before it, and an overlap if
-- it began before an earlier one had ended.
with told as (
    select
        version,
        began,
        max(version) over earlier as version_before,
        max(ended) over earlier as ended_before
    from writes
    window earlier as (
        partition by id order by began, number
        rows between unbounded preceding and 1 preceding
    )
)
select
    count(*) as writes,
    count(*) filter (where version > coalesce(version_before, -1) + 1) as inversions,
    count(*) filter (where began < ended_before) as overlaps,
    (select count(*) from orders) as orders,
    (select coalesce(min(version), -1) from orders) as earliest,
    (select coalesce(max(version), -1) from orders) as latest
from told
