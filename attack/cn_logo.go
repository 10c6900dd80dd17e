package main

import (
	"net/http"
	"net/url"
	"strings"
	"time"
)

// logos: what clients call a picture. Only for clients that the operator named is
// one fetched at all, so the server of this row has named them.
func (t *trial) logos() {
	h := t.w.host("logos.test")
	hosts := map[string]*host{} // one each: a slow one would hold up the next
	of := func(typ string, body []byte) response { return answered(body, "Content-Type", typ) }
	h.put("/good.png", of("image/png", pixels(64, 64)))
	slow := of("image/png", pixels(64, 64))
	slow.drip = 200 * time.Millisecond
	bad := map[string]response{
		"/l.svg":   of("image/svg+xml", []byte(`<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script><foreignObject/><image href="https://evil.test/x"/></svg>`)),
		"/svg.png": of("image/png", []byte(`<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>`)), "/wide.png": of("image/png", pixels(20_000, 20)), "/big.png": of("image/png", append(pixels(8, 8), make([]byte, 300<<10)...)),
		"/50mb.png": {header: http.Header{"Content-Type": {"image/png"}, "Content-Length": {"52428800"}}, body: make([]byte, 1<<20)}, "/html.gif": of("image/gif", []byte("GIF89a<html><script>alert(1)</script>")), "/typed.png": of("text/html", pixels(64, 64)),
		"/away.png": {status: 302, header: http.Header{"Location": {"https://logos.test/good.png"}, "Content-Length": {"0"}}}, "/none.png": statusResponse(404), "/slow.png": slow,
		"/empty.png": of("image/png", nil), "/cut.png": of("image/png", pixels(64, 64)[:40]), "/two.png": of("image/png", append(pixels(8, 8), pixels(8, 8)...)), "/bmp.png": of("image/bmp", append([]byte("BM"), make([]byte, 200)...)),
	}
	s := t.another(options{changes: []string{"policy: {default: allow}", "policy: {default: allow, rules: [{host: " + "'*.logos.test'" + ", action: allow}, {host: logos.test, action: allow}]}"}})
	t.at(s, func(j *person) {
		show := func(path string) *page {
			h := h
			if own := hosts[path]; own != nil {
				h = own
			}
			id := h.client(path+".json", m{"logo_uri": h.url(path), "redirect_uris": []string{redirect}})
			pg := j.visit(az("client_id", id))
			t.asks(path, pg)
			return pg
		}
		for path, r := range bad {
			h := t.w.host(strings.Replace(fresh("l"), ".test", ".logos.test", 1))
			hosts[path] = h
			h.put(path, r)
			pg := show(path)
			t.check(h.count(path) == 1, "%s was fetched %d times: the row proves nothing", path, h.count(path))
			if path != "/two.png" { // a good picture with something behind it is drawn anew without that
				t.check(!strings.Contains(pg.body, "/logo?"), "%s is shown", path)
			}
		}
		h.put("/bomb.png", of("image/png", bomb(20_000)))
		before := s.memory("VmHWM")
		show("/bomb.png")
		t.check(h.count("/bomb.png") == 1 && s.memory("VmHWM") < before+32<<10, "20,000 x 20,000: memory grew from %d to %d KiB", before, s.memory("VmHWM"))
		pg := show("/good.png")
		_, rest, ok := strings.Cut(pg.body, `src="/logo?`)
		if !t.check(ok, "a good logo is not shown: %s", pg) {
			return
		}
		ref, _, _ := strings.Cut(rest, `"`)
		get := func(query string) reply { return s.get("/logo?"+query, withHeader("Cookie", j.cookies())) }
		a := get(ref)
		t.check(a.status == 200 && a.header.Get("Content-Type") == "image/png" && a.header.Get("X-Content-Type-Options") == "nosniff" && strings.Contains(a.header.Get("Content-Security-Policy"), "default-src 'none'") && a.raw != string(pixels(64, 64)), "the logo: %d %v", a.status, a.header)
		t.check(s.get("/logo?"+ref).status == 404, "a stranger sees it")
		for _, q := range []string{"client_id=" + url.QueryEscape(h.url("/good.png.json")), "ref=" + url.QueryEscape(h.url("/good.png")), "ref=", ref + "x", "ref=AAAA" + ref, ref + "&" + ref} {
			a := get(q)
			t.check(a.status == 404 || a.status == 400, "a logo that no page showed, %.40s: %d", q, a.status)
		}
		s.later(61 * time.Minute)
		t.check(get(ref).status == 404, "an hour later its address still works")
	})
}
