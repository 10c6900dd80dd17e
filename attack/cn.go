package main

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"strings"
	"sync"
	"time"
)

// forbidden wants a step refused on a page of our own, without a code.
func (t *trial) forbidden(what string, pg *page, status ...int) {
	ok := !pg.left && pg.status >= 400 && pg.status < 500 && pg.header.Get("Location") == ""
	if len(status) > 0 {
		ok = ok && pg.status == status[0]
	}
	t.check(ok, "%s: %s", what, pg)
}

const sessionCookie = "__Host-bonafide_session"

func pixels(w, h int) []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewPaletted(image.Rect(0, 0, w, h), color.Palette{color.White, color.Black})); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// bomb is a square PNG of one bit a pixel: small to send, large to unpack.
func bomb(side int) []byte {
	chunk := func(kind string, data []byte) []byte {
		out := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
		body := append([]byte(kind), data...)
		return binary.BigEndian.AppendUint32(append(out, body...), crc32.ChecksumIEEE(body))
	}
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(side)), uint32(side))
	var zip bytes.Buffer
	z := zlib.NewWriter(&zip)
	z.Write(make([]byte, side*(side/8+1)))
	z.Close()
	out := append([]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", append(head, 1, 0, 0, 0, 0))...)
	out = append(out, chunk("IDAT", zip.Bytes())...)
	return append(out, chunk("IEND", nil)...)
}

var groupCN = group{
	name: "CN",
	prepare: func(e *env) {
		e.vars["mallory"] = e.s.newUser("mallory")
	},
	rows: []row{
		{"CN-01", func(t *trial) { t.brokered() }},
		{"CN-02", func(t *trial) { t.copied() }},
		{"CN-04", func(t *trial) {
			t.john.grant()
			for site, silent := range map[string]bool{"none": true, "same-origin": true, "same-site": false, "cross-site": false, "": false} {
				pg := t.john.from(az(), site)
				t.check(pg.left == silent, "Sec-Fetch-Site %q: %s", site, pg)
				if !pg.left {
					t.check(strings.Contains(pg.text(), "good.test"), "the destination is not shown: %s", pg)
				}
			}
			loop := t.w.host(fresh("native")).client("/c.json", m{"redirect_uris": []string{"http://127.0.0.1/cb"}})
			t.john.grant("client_id", loop, "redirect_uri", "http://127.0.0.1:51004/cb")
			for _, site := range []string{"none", "cross-site"} {
				pg := t.john.from(az("client_id", loop, "redirect_uri", "http://127.0.0.1:6666/cb"), site)
				t.asks("a loopback client, "+site, pg)
				t.check(strings.Contains(pg.text(), "127.0.0.1:6666"), "the port is not shown: %s", pg)
			}
		}},
		{"CN-05", func(t *trial) {
			t.john.grant()
			bare := func(edits ...edit) reply {
				return t.s.get(strings.TrimPrefix(az(), issuer), append(edits, withHeader("Cookie", t.john.cookies()))...)
			}
			for what, a := range map[string]reply{
				"the header was stripped": bare(), "it stands twice": bare(withHeader("Sec-Fetch-Site", "none"), withHeader("Sec-Fetch-Site", "none")), "in capitals": bare(withHeader("Sec-Fetch-Site", "NONE")), "same-site": bare(withHeader("Sec-Fetch-Site", "same-site")),
			} {
				t.check(a.status == 200 && strings.Contains(a.raw, `name="decision"`), "%s: %s", what, a)
			}
			for _, h := range [][2]string{{"Sec-Purpose", "prefetch"}, {"Purpose", "prefetch"}, {"Sec-Purpose", "prefetch;prerender"}, {"X-Moz", "prefetch"}, {"X-Purpose", "preview"}} {
				a := bare(withHeader("Sec-Fetch-Site", "none"), withHeader(h[0], h[1]))
				t.check(a.status >= 400 && a.header.Get("Location") == "", "%s: %s: %d %s", h[0], h[1], a.status, a.header.Get("Location"))
			}
			a := bare(withHeader("Sec-Fetch-Site", "none"))
			t.check(a.status == 303, "and by itself: %s", a)
		}},
		{"CN-06", func(t *trial) {
			mallory := t.vars["mallory"].(*person)
			pg := t.john.visit(az("prompt", "consent"))
			good := func() *form { return pg.must("decision").with("decision", "allow") }
			for _, origin := range []string{"https://evil.test", "null", "https://sub.as.test", "http://as.test", "https://as.test:444"} {
				f := good()
				f.origin = origin
				t.forbidden("from "+origin, t.john.send(f), 403)
			}
			f := good()
			f.values.Del("transaction")
			t.forbidden("without the sealed question", t.john.send(f))
			t.forbidden("with a changed one", t.john.send(good().with("transaction", "AAAA"+good().values.Get("transaction"))))
			t.forbidden("in another browser", mallory.send(good()))
			t.forbidden("in no browser", t.s.person().send(good()))
			other := mallory.visit(az()).must("decision").with("decision", "allow")
			t.forbidden("another person's question", t.john.send(other))
			t.forbidden("a decision that is none", t.john.send(good().with("decision", "maybe")))
			back := t.john.send(good())
			t.check(back.code() != "", "and then the honest answer: %s", back)
		}},
		{"CN-07", func(t *trial) {
			pg := t.john.visit(az("prompt", "consent"))
			f := pg.must("decision").with("decision", "allow")
			first := t.john.send(f)
			t.check(first.code() != "", "%s", first)
			t.forbidden("again", t.john.send(f))
			t.forbidden("and now no", t.john.send(f.copy().with("decision", "deny")))
			a := t.s.post("/token", codeForm(first.code()))
			t.check(a.ok(), "the first answer does not stand: %s", a)
			rounds := t.w.rounds
			defer func() { t.w.rounds = rounds }()
			t.w.rounds = max(rounds/4, 10)
			t.onceOnly("a decision", http.StatusConflict, "", func() (string, string, []edit) {
				f := t.john.visit(az("prompt", "consent")).must("decision").with("decision", "allow")
				return "/consent", f.values.Encode(), []edit{withHeader("Cookie", t.john.cookies()), withHeader("Origin", issuer), withHeader("Sec-Fetch-Site", "same-origin")}
			}, func(a reply) bool {
				return a.status == 303 && strings.Contains(a.header.Get("Location"), "code=")
			})
		}},
		{"CN-08", func(t *trial) {
			for what, address := range map[string]string{"consent": az("prompt", "consent"), "login": issuer + "/login", "logout": issuer + "/logout", "home": issuer + "/", "error": az("client_id", "x"), "the way back": az("client_id", t.w.host(fresh("frame")).client("/c.json", nil), "response_type", "x"), "nowhere": issuer + "/nowhere", "device": issuer + "/device", "admin": issuer + "/admin", "connections": issuer + "/connections", "a damaged way back": issuer + "/login?tx=x"} {
				for _, who := range []*person{t.john, t.s.person()} {
					pg := who.visit(address)
					if pg.left {
						continue
					}
					csp := pg.header.Get("Content-Security-Policy")
					t.check(strings.Contains(csp, "frame-ancestors 'none'") && pg.header.Get("X-Frame-Options") == "DENY", "%s may be framed: %v", what, pg.header)
				}
			}
		}},
		{"CN-10", func(t *trial) {
			id := t.w.host(fresh("vendor")).client("/c.json", m{"client_name": "Visual Studio Code", "redirect_uris": []string{"http://127.0.0.1/cb", "http://localhost/cb"}})
			to := p("client_id", id, "redirect_uri", "http://127.0.0.1:51004/cb")
			t.john.grant(to...)
			pg := t.john.visit(az("client_id", id, "redirect_uri", "http://127.0.0.1:6666/cb"))
			t.asks("another port", pg)
			text := pg.text()
			t.check(strings.Contains(text, "127.0.0.1:6666") && strings.Contains(text, "computer"), "no warning: %s", text)
		}},
		{"CN-11", func(t *trial) { t.forced() }},
		{"CN-12", func(t *trial) {
			planted := random(32)
			victim := t.s.person()
			victim.plant(&http.Cookie{Name: sessionCookie, Value: planted, Path: "/", Secure: true})
			t.s.addUser("vic")
			victim.signIn(victim.visit(issuer+"/login"), "vic", password)
			now := victim.cookie(sessionCookie)
			t.check(now != "" && now != planted, "the planted session is taken over")
			thief := t.s.person()
			thief.plant(&http.Cookie{Name: sessionCookie, Value: planted, Path: "/", Secure: true})
			t.check(thief.visit(az()).has("password"), "the planted session is signed in")
			t.s.later(time.Second)
			victim.signIn(victim.visit(az("prompt", "login")), "vic", password)
			t.check(victim.cookie(sessionCookie) != now, "the session id stays the same over a new sign-in")
			thief = t.s.person()
			thief.plant(&http.Cookie{Name: sessionCookie, Value: now, Path: "/", Secure: true})
			t.check(thief.visit(az()).has("password"), "the session of before is still good")
		}},
		{"CN-13", func(t *trial) {
			for _, path := range []string{"/authorize?" + strings.SplitN(az(), "?", 2)[1], "/login"} {
				for _, c := range t.s.get(path).header.Values("Set-Cookie") {
					t.check(strings.HasPrefix(c, "__Host-") && strings.Contains(c, "Secure") && strings.Contains(c, "HttpOnly") && strings.Contains(c, "SameSite=Lax") && !strings.Contains(c, "Domain"), "a cookie: %s", c)
				}
			}
			own := sessionCookie + "=" + t.john.cookie(sessionCookie)
			get := func(cookie string) reply {
				return t.s.get(strings.TrimPrefix(az("prompt", "consent"), issuer), withHeader("Cookie", cookie), withHeader("Sec-Fetch-Site", "none"))
			}
			t.check(get(own).status == 200, "its own: %s", get(own))
			for _, both := range []string{own + "; " + sessionCookie + "=evil", sessionCookie + "=evil; " + own, own + "; " + own} {
				a := get(both)
				t.check(a.status == 303 && strings.HasPrefix(a.header.Get("Location"), "/login"), "two of the name: %s", a)
			}
			t.check(get(own+strings.Repeat("; a=b", 200)).status == 200, "200 cookies")
			a := get(own + "; x=" + strings.Repeat("x", 16<<10))
			t.check(a.err == nil && a.status < 500, "16 kB: %s", a)
		}},
		{"CN-14", func(t *trial) {
			attacker, victim := t.s.person(), t.vars["mallory"].(*person)
			begun := attacker.visit(az()).url.String() // is at /login?tx=
			pg := victim.visit(begun)
			t.check(!pg.left, "a link of the attacker is answered silently: %s", pg)
			if pg.asks() {
				stolen := pg.must("decision").with("decision", "allow")
				t.forbidden("the victim's answer in the attacker's browser", attacker.send(stolen))
				t.forbidden("and in John's", t.john.send(stolen))
				victim.send(stolen)
			}
			pg = attacker.visit(begun)
			t.check(!pg.left && pg.has("password"), "the attacker resumes: %s", pg)
		}},
		{"CN-15", func(t *trial) { t.logos() }},
		{"CN-17", func(t *trial) { t.lyingProvider() }},
		{"CN-18", func(t *trial) {
			ada := t.s.newUser("ada")
			f := ada.visit(az()).must("decision").with("decision", "allow")
			t.s.later(time.Second)
			if _, err := t.s.cli("", "client", "block", goodID, "--reason", "test"); err != nil {
				t.fatal("%v", err)
			}
			t.forbidden("the client was blocked meanwhile", ada.send(f))
			if _, err := t.s.cli("", "client", "allow", goodID); err != nil {
				t.fatal("%v", err)
			}
			pg := ada.visit(az())
			t.asks("allowed again", pg)
			f = pg.must("decision").with("decision", "allow")
			if _, err := t.s.cli("", "user", "disable", "ada"); err != nil {
				t.fatal("%v", err)
			}
			t.forbidden("the user was disabled meanwhile", ada.send(f))
		}},
		{"CN-19", func(t *trial) {
			bob := t.s.newUser("bob")
			a := bob.grant()
			if _, err := t.s.cli("", "user", "disable", "bob"); err != nil {
				t.fatal("%v", err)
			}
			pg := bob.visit(az("prompt", "consent"))
			t.check(!pg.left && !pg.asks(), "/authorize: %s", pg)
			pg = bob.visit(issuer + "/device")
			t.check(!pg.left && (pg.has("password") || pg.status >= 400), "/device: %s", pg)
			b := t.s.post("/token", refreshForm(a.str("refresh_token")))
			t.check(b.is(400, "invalid_grant"), "refresh: %s", b)
			t.check(!t.s.active(a.str("access_token")), "the access token lives on")
		}},
		{"CN-20", func(t *trial) {
			t.s.addUser("target")
			t.s.addUser("gone")
			if _, err := t.s.cli("", "user", "disable", "gone"); err != nil {
				t.fatal("%v", err)
			}
			texts := map[string]bool{}
			for _, try := range [][2]string{{"target", "wrong"}, {"nobody", "wrong"}, {"gone", password}} {
				b := t.s.person()
				pg := b.signIn(b.visit(issuer+"/login"), try[0], try[1])
				texts[fmt.Sprint(pg.status, strings.ReplaceAll(reference.ReplaceAllString(pg.text(), ""), try[0], "NAME"))] = true
			}
			t.check(len(texts) == 1, "the pages differ: %v", texts)
			// One account from many addresses: it is slowed down, whoever asks.
			var mu sync.Mutex
			passed, slowed := 0, 0
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for range 40 {
						b := t.s.person()
						pg, err := b.try(issuer+"/login", "none")
						if err != nil {
							continue
						}
						pg, err = b.trySend(pg.must("password").with("username", "target").with("password", "wrong"))
						mu.Lock()
						if err == nil && pg.status == 429 {
							slowed++
						} else if err == nil && pg.status == 422 {
							passed++
						}
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			t.check(slowed > 60, "of 160 guesses from 160 addresses %d were checked and %d held back", passed, slowed)
			b := t.s.person() // one address over many accounts
			slowed = 0
			for i := range 40 {
				if pg := b.signIn(b.visit(issuer+"/login"), fmt.Sprintf("name%d", i), "wrong"); pg.status == 429 {
					slowed++
				}
			}
			t.check(slowed > 20, "of 40 accounts tried from one address %d were held back", slowed)
			t.s.later(7 * time.Hour)
			t.timing("sign-in", 60, t.wrongPassword)
		}},
	},
}

// wrongPassword tries one, from an address that nobody used.
func (t *trial) wrongPassword(real bool) reply {
	b, name := t.s.person(), "nobody"+random(4)
	if real {
		name = "target"
	}
	t.s.later(6 * time.Minute) // no wait is left from the tries before
	var pg *page
	var took time.Duration
	for range 5 { // 503: a clock that jumps, or a machine that is busy, and nobody looked
		f := b.visit(issuer+"/login").must("password").with("username", name).with("password", "wrong")
		began := time.Now()
		pg = b.send(f)
		if took = time.Since(began); pg.status != http.StatusServiceUnavailable {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.check(pg.status == http.StatusUnprocessableEntity, "a wrong password was not looked at: %s", pg)
	return reply{status: pg.status, took: took}
}
