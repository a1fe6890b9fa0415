#!/bin/sh
# SPDX-License-Identifier: MIT
# sqlite3 builds an index over a table of a million rows, with a page cache that holds all of it. The database that it
# writes is compared too.
set -u
. "${srcdir:-.}/tests/exec/same.sh"
need sqlite3
cat >"$dir/sql" <<'END'
pragma cache_size = -60000;
pragma temp_store = memory;
pragma journal_mode = memory;
create table event(id integer primary key, at integer, what text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000000)
insert into event select i, 1700000000 + i * 3 + (i * 7919) % 5, 'event ' || i % 977 || ' of ' || i from n;
create index event_at on event(at);
select count(*), sum(at), min(what), max(what) from event;
select * from event where at between 1700500000 and 1700500020;
END
# `same` runs it twice: each time into a new file of the same name
cat >"$dir/twice" <<END
.shell test ! -e $dir/event.db || mv $dir/event.db $dir/plain.db
.open $dir/event.db
.read $dir/sql
END
same sqlite3 sqlite3 -init "$dir/twice" :memory: ''
cmp "$dir/plain.db" "$dir/event.db" || say "sqlite3: another database"
test -s "$dir/event.db" || say "sqlite3: no database"
exit $bad
