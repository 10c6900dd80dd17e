package cimd

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/planted"
	"github.com/bonafide-id/bonafide/internal/safehttp"
)

// statusError is the private cause of a refused status.
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("status %d", int(s)) }

// soft reports whether a failure says nothing about the client: the network, a
// server error, or too many requests. Only then may a kept copy stand in.
func soft(err *Error) bool {
	if err.Kind == KindBackoff {
		last, ok := errors.AsType[*Error](err.Err)
		return ok && soft(last)
	}
	if status, ok := errors.AsType[statusError](err.Err); ok {
		return status >= 500 || status == http.StatusTooManyRequests
	}
	return err.Kind == KindFetch
}

// fetch asks the host of t and stores what it answers. Exactly one runs per
// target at a time.
func (r *Resolver) fetch(ctx context.Context, t target, known bool) (*entry, *Error) {
	asked := r.cfg.Now()
	wait, cancel := context.WithTimeout(ctx, r.cfg.Limits.Timeout/5)
	leave, err := r.gate.enter(wait, place{t.site(), sourceOf(ctx)}, known)
	cancel()
	if err != nil {
		return nil, err
	}
	defer leave()
	start := r.cfg.Now()
	if !known && r.backoff.failedSince(t, asked) {
		if err := r.backoff.blocked(t, start, false); err != nil {
			return nil, err
		}
	}
	prev := r.cacheOf(t).peek(t.key())
	e, status, err := r.exchange(ctx, t, prev)
	ev := Event{ID: t.id, URL: t.url, Status: status, Duration: r.cfg.Now().Sub(start)}
	if status != 0 {
		r.backoff.answered(t)
	}
	if err != nil {
		r.fail(ctx, t, prev, ev, err)
		return nil, err
	}
	e.known = prev != nil && prev.known
	r.succeed(ctx, t, prev, ev, e)
	return e, nil
}

// exchange sends the request, conditionally if there is something to confirm, and
// reads the answer.
func (r *Resolver) exchange(ctx context.Context, t target, prev *entry) (*entry, int, *Error) {
	q := safehttp.Request{
		URL: t.url, Accept: "application/json, application/*+json;q=0.9",
		MaxBody: r.cfg.Limits.DocumentBytes, MaxHeader: r.cfg.Limits.HeaderBytes, Timeout: r.cfg.Limits.Timeout,
	}
	switch t.kind {
	case kindJWKS:
		q.Accept, q.MaxBody = "application/jwk-set+json, application/json", r.cfg.Limits.JWKSBytes
	case kindLogo:
		q.Accept, q.MaxBody = "image/png, image/webp, image/jpeg, image/gif", r.cfg.Limits.LogoBytes
	}
	q.IfNoneMatch, q.IfModifiedSince = prev.validators()
	ctx, cancel := context.WithTimeout(ctx, q.Timeout) // for both requests, if there are two
	defer cancel()
	resp, err := r.http.Get(ctx, q)
	if err == nil && resp.Status == http.StatusNotModified && prev != nil &&
		q.IfNoneMatch != "" && resp.Header.Get("Etag") != "" && !sameTag(resp.Header.Get("Etag"), q.IfNoneMatch) {
		// The host confirms something we do not have. Ask without conditions.
		q.IfNoneMatch, q.IfModifiedSince = "", ""
		resp, err = r.http.Get(ctx, q)
	}
	if err != nil {
		return nil, 0, r.transportError(t, q.MaxBody, err)
	}
	if resp.Status == http.StatusNotModified && q.IfNoneMatch+q.IfModifiedSince != "" {
		return r.confirmed(t, prev, resp), resp.Status, nil
	}
	e, refusal := r.read(t, resp)
	return e, resp.Status, refusal
}

// read turns a response with a body into an entry: status, media type, content.
func (r *Resolver) read(t target, resp *safehttp.Response) (*entry, *Error) {
	if err := checkStatus(t, resp.Status); err != nil {
		return nil, err
	}
	if err := checkType(t, resp.Header); err != nil {
		return nil, err
	}
	e := &entry{
		header: keepHeaders(resp.Header), sent: resp.Sent, received: resp.Received,
		fetched: resp.Received, changed: resp.Received, attempted: resp.Received,
		fresh: r.freshness(t, resp.Header, resp.Sent, resp.Received),
	}
	return e, r.fill(t, e, resp.Body)
}

// freshness says how long a response may be used. A logo is kept as long as its
// document (CACHE-20), and no shorter than the floor.
func (r *Resolver) freshness(t target, h http.Header, sent, received time.Time) Freshness {
	f := Fresh(h, sent, received, r.cfg.Limits.Freshness)
	if t.kind != kindLogo {
		return f
	}
	least := Fresh(http.Header{"Cache-Control": {"no-store"}}, sent, received, r.cfg.Limits.Freshness)
	if !t.until.After(least.Expires) {
		return least
	}
	return Freshness{Lifetime: t.until.Sub(received), Expires: t.until, Reason: "as long as the document"}
}

// fill reads the body into an entry whose times are set.
func (r *Resolver) fill(t target, e *entry, body []byte) *Error {
	switch t.kind {
	case kindJWKS:
		set, err := parseKeys(body, int(r.cfg.Limits.JWKSBytes))
		e.keys, e.body = set, body
		return err
	case kindLogo:
		png, err := r.redraw(body)
		e.png = png
		return err
	}
	doc, err := Validate(t.id, body, r.cfg.Profile, r.cfg.Supported)
	if err != nil {
		return asError(err)
	}
	doc.Fetched, doc.Checked, doc.Freshness = e.fetched, e.received, e.fresh
	e.doc, e.body = doc, doc.Raw
	return nil
}

// confirmed returns prev as a 304 leaves it: the same document with new headers
// and a new freshness (CACHE-09, FT-25).
func (r *Resolver) confirmed(t target, prev *entry, resp *safehttp.Response) *entry {
	e := *prev
	e.header = mergeHeaders(prev.header, resp.Header)
	e.sent, e.received, e.attempted = resp.Sent, resp.Received, resp.Received
	e.fresh = r.freshness(t, e.header, resp.Sent, resp.Received)
	if prev.doc != nil {
		doc := *prev.doc
		doc.Checked, doc.Freshness = e.received, e.fresh
		e.doc = &doc
	}
	return &e
}

// succeed publishes an entry, then tells the Persister and the observer.
func (r *Resolver) succeed(ctx context.Context, t target, prev *entry, ev Event, e *entry) {
	changed := prev != nil && t.kind != kindLogo && prev.digest() != e.digest()
	if prev != nil && !changed {
		e.changed = prev.changed
	}
	r.keep(t, e)
	r.backoff.succeeded(t)
	r.save(ctx, t, e)
	ev.Type, ev.Freshness = EventFetch, e.fresh
	if ev.Status == http.StatusNotModified {
		ev.Type = EventRevalidated
	}
	r.observe(ctx, ev)
	if changed {
		ev.Type = EventChanged
		ev.Members = changedMembers(prev.content(), e.content())
		ev.OldDigest, ev.NewDigest = prev.digest(), e.digest()
		r.observe(ctx, ev)
	}
}

// fail starts the back-off, and withdraws the kept copy if the failure is an
// answer about the client and not about the network (CACHE-12, CACHE-15).
func (r *Resolver) fail(ctx context.Context, t target, prev *entry, ev Event, err *Error) {
	now := r.cfg.Now()
	if r.life.Err() == nil {
		r.backoff.failed(t, err, now)
	}
	ev.Type, ev.Kind, ev.Rule, ev.Err = EventRefused, err.Kind, err.Rule, err
	if prev == nil {
		r.observe(ctx, ev)
		return
	}
	e := *prev
	e.attempted = now
	final := !soft(err)
	if t.kind != kindDocument {
		final = err.Kind == KindGone
	}
	if !final || prev.withdrawn != nil {
		r.keep(t, &e)
		if !e.usable(now) && r.standsIn(t, &e, err) {
			ev.Type, ev.Freshness = EventStale, e.fresh
		}
		r.observe(ctx, ev)
		return
	}
	r.observe(ctx, ev)
	e.withdrawn = err
	r.keep(t, &e)
	r.save(ctx, t, &e)
	ev.Type = EventWithdrawn
	r.observe(ctx, ev)
}

// transportError tells the developer the same for a network failure and for an
// address that is never dialled: which of the two it was stays in the cause
// (FETCH-23).
func (r *Resolver) transportError(t target, limit int64, err error) *Error {
	cause, _ := errors.AsType[*safehttp.Error](err)
	if cause != nil && cause.Kind == safehttp.KindTooLarge {
		return &Error{Kind: KindTooLarge, Rule: "FETCH-09", Err: err, Hint: fmt.Sprintf(
			"the %s is larger than %d bytes, or its response headers are larger than %d bytes",
			t.noun(), limit, r.cfg.Limits.HeaderBytes)}
	}
	return &Error{Kind: KindFetch, Rule: "FETCH-04", Err: err, Hint: fmt.Sprintf(
		"the %s could not be fetched: its host must have a public address, answer an https GET within %s, "+
			"and present a certificate that is valid for its name", t.noun(), r.cfg.Limits.Timeout)}
}

func (t target) noun() string {
	switch t.kind {
	case kindJWKS:
		return "key set (jwks_uri)"
	case kindLogo:
		return "logo"
	}
	return "document"
}

// checkStatus accepts 200 and nothing else (FETCH-02, FETCH-03).
func checkStatus(t target, status int) *Error {
	if status == http.StatusOK {
		return nil
	}
	err := &Error{Kind: KindStatus, Rule: "FETCH-03", Err: statusError(status),
		Hint: fmt.Sprintf("the %s must be answered with status 200; the host answered %d", t.noun(), status)}
	switch {
	case status == http.StatusNotFound || status == http.StatusGone:
		err.Kind, err.Rule = KindGone, "CACHE-15"
	case status >= 300 && status < 400 && status != http.StatusNotModified:
		err.Rule = "FETCH-02"
		err.Hint += "; redirects are not followed, the client_id must be the final URL"
		if t.kind != kindDocument {
			err.Hint = strings.TrimSuffix(err.Hint, ", the client_id must be the final URL")
		}
	}
	return err
}

// checkType accepts application/json and application/*+json in UTF-8, or an image
// for a logo (FETCH-13).
func checkType(t target, h http.Header) *Error {
	if enc := h.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return typeError(t, "with a Content-Encoding, which was not asked for")
	}
	values := h.Values("Content-Type")
	if len(values) != 1 {
		return typeError(t, fmt.Sprintf("with %d Content-Type headers", len(values)))
	}
	media, params, err := mime.ParseMediaType(values[0])
	if err != nil {
		return typeError(t, "with a Content-Type that cannot be read")
	}
	if t.kind == kindLogo {
		switch media {
		case "image/png", "image/jpeg", "image/gif", "image/webp":
			return nil
		}
		return typeError(t, "with another Content-Type")
	}
	sub, isApp := strings.CutPrefix(media, "application/")
	prefix, plus := strings.CutSuffix(sub, "+json")
	if !planted.Weak("type") && (!isApp || (sub != "json" && (!plus || prefix == ""))) {
		return typeError(t, "with another Content-Type")
	}
	if c, ok := params["charset"]; ok && !strings.EqualFold(c, "utf-8") {
		return typeError(t, "with a charset other than utf-8")
	}
	return nil
}

func typeError(t target, saw string) *Error {
	want := "application/json or application/*+json"
	if t.kind == kindLogo {
		want = "image/png, image/jpeg, image/gif or image/webp"
	}
	return &Error{Kind: KindType, Rule: "FETCH-13", Hint: fmt.Sprintf(
		"the %s must be sent once as %s; the host answered %s", t.noun(), want, saw)}
}

// asError gives every failure the type that callers are promised.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Kind: KindDocument, Hint: "the document is invalid", Err: err}
}
