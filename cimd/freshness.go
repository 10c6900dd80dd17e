package cimd

import (
	"net/http"
	"time"
)

// Freshness says how long a response may be used without asking again, and why.
type Freshness struct {
	Lifetime time.Duration // counted from receipt, after Age and transit time, clamped
	Expires  time.Time     // receipt + Lifetime
	Reason   string        // for the operator: "max-age=300, Age 10"
	Clamped  string        // "", "floor" or "ceiling"
	Store    bool          // false: never write this response to disk (no-store, private, Vary: *)
	// MustRevalidate is set when the host forbids the use of the response after
	// it expired (must-revalidate, proxy-revalidate, no-cache, s-maxage).
	MustRevalidate bool
}

// FreshnessLimits bound what a host may ask for. Zero values mean 60 seconds,
// 24 hours and 1 hour.
type FreshnessLimits struct {
	Floor   time.Duration // the least lifetime, also against no-store, no-cache and private
	Ceiling time.Duration // the greatest lifetime
	Default time.Duration // the lifetime when the host states none
}

// Fresh computes the freshness of a response to a shared cache (RFC 9111 section
// 4.2) and clamps it to the limits. It is a pure function.
func Fresh(h http.Header, sent, received time.Time, lim FreshnessLimits) Freshness {
	return Freshness{}
}
