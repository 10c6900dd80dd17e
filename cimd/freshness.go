package cimd

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Freshness says how long a response may be used without asking again, and why.
type Freshness struct {
	Lifetime time.Duration // counted from receipt, after Age and transit time, clamped
	Expires  time.Time     // receipt + Lifetime
	Reason   string        // for the operator: "max-age=300, Age 10"
	Clamped  string        // "", "floor" or "ceiling"
	// Store is false when the response must never be written to disk, whatever
	// its lifetime in memory: no-store, private or Vary: * (FT-22).
	Store bool
	// MustRevalidate is set when the host forbids the use of the response after
	// it expired, also when the host cannot be reached: must-revalidate,
	// proxy-revalidate, no-cache or s-maxage (RFC 9111 section 4.2.4).
	MustRevalidate bool
}

// FreshnessLimits bound what a host may ask for. Zero values mean 60 seconds,
// 24 hours and 1 hour. A ceiling below the floor counts as the floor.
type FreshnessLimits struct {
	Floor   time.Duration // the least lifetime, also against no-store, no-cache and private (CACHE-02)
	Ceiling time.Duration // the greatest lifetime
	Default time.Duration // the lifetime when the host states none (CACHE-06)
}

func (l FreshnessLimits) withDefaults() FreshnessLimits {
	if l.Floor <= 0 {
		l.Floor = time.Minute
	}
	if l.Ceiling <= 0 {
		l.Ceiling = 24 * time.Hour
	}
	if l.Default <= 0 {
		l.Default = time.Hour
	}
	l.Ceiling = max(l.Ceiling, l.Floor)
	return l
}

// maxDelta is what RFC 9111 section 1.2.2 puts in the place of greater numbers
// of seconds: about 68 years, which no addition of durations can overflow.
const maxDelta = 1<<31 - 1

// Fresh computes the freshness of a response to a shared cache (RFC 9111 section
// 4.2) from its headers and from the times at which the request was sent and the
// response received, and clamps it to the limits. It is a pure function.
//
// What the host forbids to reuse (no-store, no-cache, private, Vary: *), what is
// contradictory and what cannot be read has no lifetime, so that the floor
// applies: a document is asked for at most once per floor (CACHE-02, CACHE-08).
// Vary on anything but * is meaningless here, because each request is the same.
func Fresh(h http.Header, sent, received time.Time, lim FreshnessLimits) Freshness {
	lim = lim.withDefaults()
	cc := parseCacheControl(h.Values("Cache-Control"))
	varies := varyAll(h.Values("Vary"))
	f := Freshness{
		Store:          !cc.has("no-store") && !cc.has("private") && !varies,
		MustRevalidate: cc.has("must-revalidate") || cc.has("proxy-revalidate") || cc.has("no-cache") || cc.has("s-maxage"),
	}
	var why []string
	for _, name := range []string{"no-store", "no-cache", "private"} {
		if cc.has(name) {
			why = append(why, name)
		}
	}
	if varies {
		why = append(why, "Vary: *")
	}
	if len(why) == 0 {
		var lifetime time.Duration
		lifetime, f.Reason = statedLifetime(h, cc, received, lim.Default)
		age, text := currentAge(h, sent, received)
		f.Lifetime = max(lifetime-age, 0)
		f.Reason += text
	} else {
		f.Reason = strings.Join(why, ", ")
	}
	switch {
	case f.Lifetime < lim.Floor:
		f.Lifetime, f.Clamped = lim.Floor, "floor"
		f.Reason += fmt.Sprintf("; raised to the floor of %v", lim.Floor)
	case f.Lifetime > lim.Ceiling:
		f.Lifetime, f.Clamped = lim.Ceiling, "ceiling"
		f.Reason += fmt.Sprintf("; lowered to the ceiling of %v", lim.Ceiling)
	}
	f.Expires = received.Add(f.Lifetime)
	return f
}

// statedLifetime follows the order of RFC 9111 section 4.2.1: s-maxage, max-age,
// Expires minus Date, then the default (CACHE-03). A duplicate or unreadable
// directive means stale, also where another one would win (CACHE-05).
func statedLifetime(h http.Header, cc cacheControl, received time.Time, def time.Duration) (time.Duration, string) {
	for _, name := range []string{"s-maxage", "max-age"} {
		if cc.count(name) > 1 {
			return 0, name + " is given more than once"
		}
		if _, ok := parseDelta(cc.arg(name)); cc.has(name) && !ok {
			return 0, name + " cannot be read"
		}
	}
	for _, name := range []string{"s-maxage", "max-age"} {
		if cc.has(name) {
			n, _ := parseDelta(cc.arg(name))
			return time.Duration(n) * time.Second, fmt.Sprintf("%s=%d", name, n)
		}
	}
	expires := h.Values("Expires")
	if len(expires) == 0 {
		return def, fmt.Sprintf("no explicit lifetime: default %v", def)
	}
	at, err := http.ParseTime(expires[0])
	if err != nil || len(expires) > 1 {
		return 0, "Expires cannot be read"
	}
	date := received
	if d, err := http.ParseTime(h.Get("Date")); err == nil {
		date = d
	}
	lifetime := min(max(at.Sub(date), 0), maxDelta*time.Second)
	return lifetime, fmt.Sprintf("Expires, %v after Date", lifetime.Round(time.Second))
}

// currentAge is the age on receipt, RFC 9111 section 4.2.3 (CACHE-04). An Age
// field that cannot be read is ignored and of a list the first member counts, as
// section 5.1 asks.
func currentAge(h http.Header, sent, received time.Time) (time.Duration, string) {
	var apparent time.Duration
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		apparent = min(max(received.Sub(date), 0), maxDelta*time.Second)
	}
	transit := min(max(received.Sub(sent), 0), time.Hour)
	corrected, text := transit, ""
	first, _, _ := strings.Cut(h.Get("Age"), ",")
	if n, ok := parseDelta(strings.TrimSpace(first)); ok && n > 0 {
		corrected += time.Duration(n) * time.Second
		text = fmt.Sprintf(", Age %d", n)
	}
	if apparent > corrected {
		// Date has whole seconds: a difference below two of them says nothing.
		if apparent >= 2*time.Second {
			text = fmt.Sprintf(", Date %v ago", apparent.Round(time.Second))
		}
		return apparent, text
	}
	return corrected, text
}

// directive is one part of a Cache-Control field.
type directive struct{ name, arg string }

type cacheControl []directive

// parseCacheControl reads the directives of all field lines (RFC 9111 section
// 5.2). Names are lower-cased and quotes around an argument removed, because
// both notations of an argument must be accepted.
func parseCacheControl(lines []string) cacheControl {
	var cc cacheControl
	for _, line := range lines {
		for line != "" {
			var part string
			part, line = cutListItem(line)
			name, arg, _ := strings.Cut(part, "=")
			name, arg = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(arg)
			if len(arg) >= 2 && arg[0] == '"' && arg[len(arg)-1] == '"' {
				arg = arg[1 : len(arg)-1]
			}
			if name != "" {
				cc = append(cc, directive{name, arg})
			}
		}
	}
	return cc
}

// cutListItem cuts the text before the first comma that is not in quotes.
func cutListItem(s string) (item, rest string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

func (cc cacheControl) count(name string) (n int) {
	for _, d := range cc {
		if d.name == name {
			n++
		}
	}
	return n
}

func (cc cacheControl) has(name string) bool { return cc.count(name) > 0 }

func (cc cacheControl) arg(name string) string {
	for _, d := range cc {
		if d.name == name {
			return d.arg
		}
	}
	return ""
}

// parseDelta reads a number of seconds: digits only. Numbers that are too great
// become maxDelta.
func parseDelta(s string) (int64, bool) {
	if s == "" {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = min(n*10+int64(s[i]-'0'), maxDelta)
	}
	return n, true
}

func varyAll(lines []string) bool {
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			if strings.TrimSpace(name) == "*" {
				return true
			}
		}
	}
	return false
}
