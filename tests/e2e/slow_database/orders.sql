-- What a handler of orders keeps, and round it what the test needs: a statement takes a fixed time on its
-- connection, and leaves a trace.

create table work (seconds double precision not null);

create table orders (id text primary key, version bigint not null);

create table writes (
    number bigint generated always as identity,
    id text not null,
    version bigint not null,
    began timestamptz not null,
    ended timestamptz not null
);

create function trace() returns trigger language plpgsql as $$
declare
    now_began constant timestamptz := clock_timestamp();
begin
    perform pg_sleep(seconds) from work;
    insert into writes (id, version, began, ended)
        values (new.id, new.version, now_began, clock_timestamp());
    return new;
end
$$;

-- Before the insert that each statement tries: also when the order is known and is updated.
create trigger trace before insert on orders for each row execute function trace();
