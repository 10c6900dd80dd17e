package main

import (
	"time"
)

// ca07 lets one client send assertions that are all good, each with an identifier
// of its own: each has to be remembered while it is good, so what one client may
// have remembered has to be bounded.
func ca07(t *trial, k *keyed) {
	once, again := k.assert(nil), t.scaled(2000, 60_000) // more than a client may have remembered at once
	replayed := t.flood(flood{n: again, hands: 16, body: true, request: func(int) []byte {
		return wirePost("/revoke", values(with(once, "token", "unknown")...))
	}})
	t.check(replayed["200"] == 1 && replayed.only(again, "200", "401"), "one assertion, over and over: %v", replayed)
	t.check(k.auth(k.assert(nil)).ok(), "whoever has seen one assertion shuts its client out")
	before := t.kept()
	n, got, began := t.scaled(2000, 1_000_000), tally{}, time.Now()
	send := func() {
		got = t.flood(flood{n: n, hands: 16, body: true, request: func(int) []byte {
			return wirePost("/revoke", values(with(k.assert(m{"exp": k.s.now().Unix() + 290}), "token", "unknown")...))
		}})
	}
	honest, slow := t.meanwhile("many assertions of one client", send)
	took, after := time.Since(began), t.kept()
	t.check(got["200"] > 0 && got.only(n, "200", "429", "503"), "answers: %v", got)
	t.check(after.rss <= before.rss+32<<10, "memory grew: %s", after.since(before))
	t.check(after.disk <= before.disk+64<<20, "the disk grew: %s", after.since(before))
	t.note("%d assertions of one client in %v: %v; %s; %d honest requests meanwhile, p99 %v", n, took.Round(time.Second), got, after.since(before), honest, slow.Round(time.Millisecond))
	other := t.keyed(fresh("calm"), nil, "ES256")
	t.check(other.redeem(other.codeOf(t.john), other.assert(nil)).ok(), "another client meanwhile")
	t.s.later(15 * time.Minute) // each has expired, and been forgotten
	t.check(k.auth(k.assert(nil)).ok(), "the client a quarter of an hour later")
	// Our clock is ahead of the database's now. A replica whose clock is wrong takes
	// nothing away from the others (FA-12); the sweep itself is tested at the store.
	if p, ok := t.w.engine.(*postgres); ok {
		t.s.later(time.Minute)
		left := t.number(p, "SELECT count(*) FROM spent_ids")
		t.check(left >= got["200"], "%d of %d identifiers are remembered: a clock that is ahead removed the others", left, got["200"])
	}
}
