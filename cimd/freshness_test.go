package cimd

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func headers(lines ...string) http.Header {
	h := http.Header{}
	for _, l := range lines {
		name, val, _ := strings.Cut(l, ": ")
		h.Add(name, val)
	}
	return h
}

var clock = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func TestFresh(t *testing.T) {
	at := func(d time.Duration) string { return clock.Add(d).Format(http.TimeFormat) }
	const floor, ceiling, def = time.Minute, 24 * time.Hour, time.Hour
	rows := []struct {
		name    string
		h       []string
		want    time.Duration
		clamped string
		reason  string // must be contained
		store   bool
	}{
		{"CACHE-01, CACHE-03 max-age", []string{"Cache-Control: max-age=300"}, 5 * time.Minute, "", "max-age=300", true},
		{"CACHE-03 s-maxage goes before max-age", []string{"Cache-Control: max-age=300, s-maxage=600"}, 10 * time.Minute, "", "s-maxage=600", true},
		{"CACHE-03 max-age goes before Expires", []string{"Cache-Control: max-age=300", "Expires: " + at(2*time.Hour)}, 5 * time.Minute, "", "max-age=300", true},
		{"CACHE-03 Expires minus Date", []string{"Date: " + at(0), "Expires: " + at(2*time.Hour)}, 2 * time.Hour, "", "Expires", true},
		{"CACHE-03 Expires minus Date, not minus our clock", []string{"Date: " + at(time.Hour), "Expires: " + at(2*time.Hour)}, time.Hour, "", "Expires", true},
		{"CACHE-03 Expires without Date counts from receipt", []string{"Expires: " + at(2*time.Hour)}, 2 * time.Hour, "", "Expires", true},
		{"CACHE-04 Age is subtracted", []string{"Cache-Control: max-age=300", "Age: 10"}, 290 * time.Second, "", "max-age=300, Age 10", true},
		{"CACHE-04, attack FT-24: Age 3000 of 3600", []string{"Cache-Control: max-age=3600", "Age: 3000"}, 10 * time.Minute, "", "Age 3000", true},
		{"CACHE-04, attack FT-24: Age 99999999", []string{"Cache-Control: max-age=3600", "Age: 99999999"}, floor, "floor", "Age 99999999", true},
		{"CACHE-04, attack FT-24: an Age beyond any number", []string{"Cache-Control: max-age=3600", "Age: 99999999999999999999999"}, floor, "floor", "Age", true},
		{"CACHE-04, attack FT-24: Date an hour in the past", []string{"Cache-Control: max-age=7200", "Date: " + at(-time.Hour)}, time.Hour, "", "Date 1h0m0s ago", true},
		{"CACHE-04 the greater of Age and Date's age counts", []string{"Cache-Control: max-age=7200", "Age: 5400", "Date: " + at(-time.Hour)}, 30 * time.Minute, "", "Age 5400", true},
		{"CACHE-04 a Date in the future adds nothing", []string{"Cache-Control: max-age=300", "Date: " + at(time.Hour)}, 5 * time.Minute, "", "", true},
		{"CACHE-04 an Age that cannot be read is ignored", []string{"Cache-Control: max-age=300", "Age: -5"}, 5 * time.Minute, "", "", true},
		{"CACHE-03, attack FT-24: Expires in 1970", []string{"Expires: Thu, 01 Jan 1970 00:00:00 GMT"}, floor, "floor", "Expires", true},
		{"CACHE-02, attack FT-24: Expires in 9999", []string{"Expires: Fri, 31 Dec 9999 23:59:59 GMT"}, ceiling, "ceiling", "lowered to the ceiling of 24h0m0s", true},
		{"CACHE-05 Expires: 0", []string{"Expires: 0"}, floor, "floor", "Expires cannot be read", true},
		{"CACHE-05 two Expires", []string{"Expires: " + at(time.Hour), "Expires: " + at(2*time.Hour)}, floor, "floor", "Expires cannot be read", true},
		{"CACHE-06 no lifetime: the default", nil, def, "", "no explicit lifetime: default 1h0m0s", true},
		{"CACHE-06 Last-Modified makes no heuristic of its own", []string{"Last-Modified: " + at(-1000*time.Hour)}, def, "", "default", true},
		{"CACHE-06 public alone states no lifetime", []string{"Cache-Control: public"}, def, "", "default", true},
		{"CACHE-02 max-age=0 is raised to the floor", []string{"Cache-Control: max-age=0"}, floor, "floor", "raised to the floor of 1m0s", true},
		{"CACHE-02 a year is lowered to the ceiling", []string{"Cache-Control: max-age=31536000, immutable"}, ceiling, "ceiling", "max-age=31536000", true},
		{"CACHE-02, CACHE-07, attack FT-22: no-store has the floor and is not written to disk", []string{"Cache-Control: no-store"}, floor, "floor", "no-store", false},
		{"CACHE-02, CACHE-08 no-cache has the floor", []string{"Cache-Control: no-cache, max-age=300"}, floor, "floor", "no-cache", true},
		{"CACHE-02 private has the floor and is not written to disk", []string{"Cache-Control: private, max-age=300"}, floor, "floor", "private", false},
		{"CACHE-02 private with field names counts as private", []string{`Cache-Control: private="x-a, x-b", max-age=300`}, floor, "floor", "private", false},
		{"CACHE-02 Vercel's header keeps a lifetime", []string{"Cache-Control: private, max-age=0, must-revalidate"}, floor, "floor", "private", false},
		{"CACHE-10, attack FT-27: Vary: * has the floor and is not written to disk", []string{"Cache-Control: max-age=300", "Vary: Accept, *"}, floor, "floor", "Vary: *", false},
		{"CACHE-10 Vary on a header that is constant changes nothing", []string{"Cache-Control: max-age=300", "Vary: Accept-Encoding, Origin"}, 5 * time.Minute, "", "", true},
		{"CACHE-05, attack FT-23: conflicting max-age", []string{"Cache-Control: max-age=60, max-age=9999"}, floor, "floor", "max-age is given more than once", true},
		{"CACHE-05, attack FT-23: conflicting max-age in two lines", []string{"Cache-Control: max-age=6000", "Cache-Control: max-age=9999"}, floor, "floor", "more than once", true},
		{"CACHE-05, attack FT-23: a negative max-age", []string{"Cache-Control: max-age=-1"}, floor, "floor", "max-age cannot be read", true},
		{"CACHE-05, attack FT-23: max-age=1e9", []string{"Cache-Control: max-age=1e9"}, floor, "floor", "max-age cannot be read", true},
		{"CACHE-05 max-age without a number", []string{"Cache-Control: max-age"}, floor, "floor", "max-age cannot be read", true},
		{"CACHE-05 an unreadable s-maxage spoils a good max-age", []string{"Cache-Control: s-maxage=x, max-age=600"}, floor, "floor", "s-maxage cannot be read", true},
		{"CACHE-05 an unreadable max-age spoils a good s-maxage", []string{"Cache-Control: s-maxage=600, max-age=x"}, floor, "floor", "max-age cannot be read", true},
		{"CACHE-02, attack FT-23: a max-age beyond any number", []string{"Cache-Control: max-age=99999999999999999999"}, ceiling, "ceiling", "max-age=2147483647", true},
		{"CACHE-03, attack FT-23: upper case", []string{"Cache-Control: MAX-AGE=600"}, 10 * time.Minute, "", "max-age=600", true},
		{"CACHE-03, attack FT-23: a quoted number", []string{`Cache-Control: max-age="600"`}, 10 * time.Minute, "", "max-age=600", true},
		{"CACHE-03 a directive inside quotes is none", []string{`Cache-Control: x="no-store, max-age=1", max-age=600`}, 10 * time.Minute, "", "max-age=600", true},
		{"CACHE-03 an escaped quote does not end the quotes", []string{`Cache-Control: x="a\", no-store", max-age=600`}, 10 * time.Minute, "", "max-age=600", true},
		{"CACHE-03 empty parts and spaces are ignored", []string{"Cache-Control: ,, max-age = 600 ,"}, 10 * time.Minute, "", "max-age=600", true},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := Fresh(headers(r.h...), clock, clock, FreshnessLimits{})
			if f.Lifetime != r.want || f.Clamped != r.clamped || f.Store != r.store {
				t.Errorf("lifetime %v clamped %q store %v, want %v %q %v (%s)", f.Lifetime, f.Clamped, f.Store, r.want, r.clamped, r.store, f.Reason)
			}
			if !strings.Contains(f.Reason, r.reason) || f.Reason == "" {
				t.Errorf("reason %q, want %q in it", f.Reason, r.reason)
			}
			if !f.Expires.Equal(clock.Add(f.Lifetime)) {
				t.Errorf("expires %v", f.Expires)
			}
		})
	}
}

func TestFreshLimits(t *testing.T) {
	t.Run("CACHE-04 transit time is subtracted", func(t *testing.T) {
		f := Fresh(headers("Cache-Control: max-age=300"), clock.Add(-4*time.Second), clock, FreshnessLimits{})
		if f.Lifetime != 296*time.Second {
			t.Errorf("lifetime %v", f.Lifetime)
		}
	})
	t.Run("CACHE-04 a clock that went back subtracts nothing", func(t *testing.T) {
		f := Fresh(headers("Cache-Control: max-age=300"), clock.Add(time.Hour), clock, FreshnessLimits{})
		if f.Lifetime != 300*time.Second {
			t.Errorf("lifetime %v", f.Lifetime)
		}
	})
	t.Run("CACHE-02 the limits are configurable", func(t *testing.T) {
		lim := FreshnessLimits{Floor: 10 * time.Second, Ceiling: 20 * time.Second, Default: 15 * time.Second}
		for h, want := range map[string]time.Duration{"max-age=1": lim.Floor, "max-age=12": 12 * time.Second, "max-age=99": lim.Ceiling, "public": lim.Default} {
			if f := Fresh(headers("Cache-Control: "+h), clock, clock, lim); f.Lifetime != want {
				t.Errorf("%s: %v, want %v", h, f.Lifetime, want)
			}
		}
	})
	t.Run("CACHE-02 a ceiling below the floor counts as the floor", func(t *testing.T) {
		f := Fresh(nil, clock, clock, FreshnessLimits{Floor: time.Hour, Ceiling: time.Minute})
		if f.Lifetime != time.Hour {
			t.Errorf("lifetime %v", f.Lifetime)
		}
	})
	t.Run("CACHE-04, attack FT-24: of an Age that is a list the first member counts", func(t *testing.T) {
		for age, want := range map[string]time.Duration{"3000": 10 * time.Minute, "3000, 10": 10 * time.Minute, "3000,junk": 10 * time.Minute, "junk, 3000": time.Hour, ", 3000": time.Hour} {
			if f := Fresh(headers("Cache-Control: max-age=3600", "Age: "+age), clock, clock, FreshnessLimits{}); f.Lifetime != want {
				t.Errorf("%q: %v", age, f.Lifetime)
			}
		}
	})
	t.Run("CACHE-08, CACHE-14 some directives forbid the use of an expired copy", func(t *testing.T) {
		for h, want := range map[string]bool{"must-revalidate": true, "proxy-revalidate": true, "no-cache": true, "s-maxage=5": true, "max-age=5": false, "no-store": false, "": false} {
			if f := Fresh(headers("Cache-Control: "+h), clock, clock, FreshnessLimits{}); f.MustRevalidate != want {
				t.Errorf("%q: %v", h, f.MustRevalidate)
			}
		}
	})
}

// checkFreshness states what holds for any headers.
func checkFreshness(t failer, f Freshness) {
	if f.Lifetime < time.Minute || f.Lifetime > 24*time.Hour || f.Reason == "" || !f.Expires.Equal(clock.Add(f.Lifetime)) {
		t.Fatalf("freshness %+v", f)
	}
}

func TestFreshBounds(t *testing.T) {
	words := []string{"max-age", "s-maxage", "no-store", "no-cache", "private", "=", "-1", "0", "60", "99999999999999999999", `"`, "\\", ",", " ", "*"}
	rapid.Check(t, func(t *rapid.T) {
		text := func(name string) string {
			return strings.Join(rapid.SliceOfN(rapid.SampledFrom(words), 0, 12).Draw(t, name), "")
		}
		h := http.Header{"Cache-Control": {text("cc"), text("cc2")}, "Age": {text("age")}, "Vary": {text("vary")}}
		if rapid.Bool().Draw(t, "dated") {
			h.Set("Date", time.Unix(rapid.Int64Range(-1<<35, 1<<37).Draw(t, "date"), 0).UTC().Format(http.TimeFormat))
			h.Set("Expires", time.Unix(rapid.Int64Range(-1<<35, 1<<37).Draw(t, "expires"), 0).UTC().Format(http.TimeFormat))
		}
		checkFreshness(t, Fresh(h, clock.Add(-time.Second), clock, FreshnessLimits{}))
	})
}
