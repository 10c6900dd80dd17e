package cimd

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/bonafide-id/bonafide/internal/safehttp"
)

// FuzzURL holds what we read in a client_id against what net/url reads and what
// the fetcher would send: the three must name the same host, port and resource,
// and what is accepted must be possible to fetch.
func FuzzURL(f *testing.F) {
	for _, name := range []string{"ids_valid.txt", "ids_invalid.txt"} {
		for _, l := range readIDs(f, name) {
			f.Add(l.raw)
		}
	}
	for _, raw := range []string{"https://good.test/?", "https://good.test/a?b?c%20", "https://good.test//a//", "https://good.test/%41;[x]!$&'()*+,=:@~", "https://[2606:4700::1]:8443/c"} {
		f.Add(raw)
	}
	rules := URLRules{AllowQuery: true, AllowRootPath: true, AllowIP: true, AllowTestNames: true, Ports: []uint16{8443}}
	fetcher, err := safehttp.New(safehttp.Rules{Ports: []uint16{443, 8443}})
	if err != nil {
		f.Fatal(err)
	}
	public := netip.MustParseAddr("93.184.216.34")
	f.Fuzz(func(t *testing.T, raw string) {
		id, err := rules.Parse(raw)
		if err != nil {
			if e := asError(err); e.Kind != KindURL || e.Rule == "" || e.Hint == "" {
				t.Fatalf("%q: error %+v", raw, e)
			}
			return
		}
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatalf("net/url refuses %q: %v", raw, err)
		}
		port := u.Port()
		if port == "" {
			port = "443"
		}
		host := u.Hostname()
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		if u.Scheme != "https" || u.User != nil || u.Fragment != "" || u.Opaque != "" || host != id.Host() || port != strconv.Itoa(int(id.Port())) {
			t.Fatalf("%q: net/url has %+v, we have host %q, port %d", raw, u, id.Host(), id.Port())
		}
		if u.EscapedPath() != id.Path() || "https://"+u.Host+u.RequestURI() != raw || id.String() != raw {
			t.Fatalf("%q: net/url has path %q and sends %q, we have %q", raw, u.EscapedPath(), u.RequestURI(), id.Path())
		}
		if e, refused := fetcher.CheckAddr(raw, public).(*safehttp.Error); refused && e.Kind == safehttp.KindURL {
			t.Fatalf("%q is accepted and can never be fetched: %v", raw, e)
		}
	})
}

// plain turns a value into what encoding/json makes of the same text.
func plain(v *value) any {
	switch v.kind {
	case kindBool:
		return v.truth
	case kindNumber:
		n, err := strconv.ParseFloat(v.text, 64)
		if err != nil {
			return err
		}
		return n
	case kindString:
		return v.text
	case kindArray:
		out := make([]any, 0, len(v.items))
		for i := range v.items {
			out = append(out, plain(&v.items[i]))
		}
		return out
	case kindObject:
		out := map[string]any{}
		for i := range v.members {
			out[v.members[i].name] = plain(&v.members[i].val)
		}
		return out
	}
	return nil
}

// syntaxErrors are refusals for which encoding/json must have one, too.
var syntaxErrors = []string{
	"after the end", "ends too early", "no JSON value", "comma or a closing", "member name in double quotes", "colon is missing",
	"control character that is not escaped", "has no end", "escape sequence is unknown", "number is malformed", "not an object",
}

// FuzzParseObject holds the scanner against encoding/json: what it accepts has the
// same value there, and what it calls malformed is malformed there.
func FuzzParseObject(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":null}]}`, `{"a":"\ud83d\ude00"}`, `{"a":1e400}`, `{"a":1,"A":2}`, `{"":"\u0000"}`, "{\"a\":\"\xff\"}", `{} x`, `{"a":-0.5E-7,"b":[true,false,[]]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		v, err := parseObject(src)
		var want any
		oracle := json.Unmarshal([]byte(src), &want)
		if err != nil {
			if _, object := want.(map[string]any); oracle == nil && object {
				for _, s := range syntaxErrors {
					if strings.Contains(err.Error(), s) {
						t.Fatalf("%v, and encoding/json reads %v", err, want)
					}
				}
			}
			return
		}
		if !utf8.ValidString(src) {
			t.Fatal("invalid UTF-8 was accepted")
		}
		if oracle != nil {
			t.Fatalf("encoding/json: %v", oracle)
		}
		if got := plain(v); !reflect.DeepEqual(got, want) {
			t.Fatalf("we read %v, encoding/json %v", got, want)
		}
		if v.start != len(src)-len(strings.TrimLeft(src, " \t\r\n")) || v.end != len(strings.TrimRight(src, " \t\r\n")) {
			t.Fatalf("the object is said to be at %d to %d", v.start, v.end)
		}
	})
}

// literalDirectives reads Cache-Control by the grammar of RFC 9111 section 5.2 and
// RFC 9110 section 5.6, character by character, and nothing else.
func literalDirectives(s string) (out [][2]string, ok bool) {
	const tchar = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	i := 0
	span := func(set string) string {
		from := i
		for i < len(s) && strings.IndexByte(set, s[i]) >= 0 {
			i++
		}
		return s[from:i]
	}
	for {
		span(" \t,") // empty elements are allowed to recipients
		if i == len(s) {
			return out, true
		}
		name, arg := span(tchar), ""
		if name == "" {
			return nil, false
		}
		if i < len(s) && s[i] == '=' {
			i++
			if i < len(s) && s[i] == '"' {
				end := strings.IndexByte(s[i+1:], '"')
				if end < 0 || strings.Contains(s[i+1:i+1+end], `\`) {
					return nil, false // a quoted pair makes no number and no name we know
				}
				arg = s[i+1 : i+1+end]
				i += end + 2
			} else if arg = span(tchar); arg == "" {
				return nil, false
			}
		}
		span(" \t")
		if i < len(s) && s[i] != ',' {
			return nil, false
		}
		out = append(out, [2]string{strings.ToLower(name), arg})
	}
}

// literalSeconds reads delta-seconds (RFC 9111 section 1.2.2) in nanoseconds.
func literalSeconds(s string) (*big.Int, bool) {
	n, ok := new(big.Int).SetString(s, 10)
	if !ok || strings.Trim(s, "0123456789") != "" {
		return nil, false
	}
	if most := big.NewInt(1<<31 - 1); n.Cmp(most) > 0 {
		n = most
	}
	return n.Mul(n, big.NewInt(int64(time.Second))), true
}

func nanosBetween(a, b time.Time) *big.Int {
	n := new(big.Int).Mul(big.NewInt(b.Unix()-a.Unix()), big.NewInt(1e9))
	n.Add(n, big.NewInt(int64(b.Nanosecond()-a.Nanosecond())))
	if most := big.NewInt((1<<31 - 1) * int64(time.Second)); n.Cmp(most) > 0 {
		n = most // section 1.2.2 again: no number of seconds is greater
	}
	return n
}

// literalFresh is section 4.2 of RFC 9111 word by word, without a thought for
// speed or size. It returns false where the section leaves the choice to us.
func literalFresh(h http.Header, sent, received time.Time, lim FreshnessLimits) (lifetime *big.Int, storable, ok bool) {
	directives, ok := literalDirectives(h.Get("Cache-Control"))
	if !ok {
		return nil, false, false
	}
	args, zero := map[string][]string{}, new(big.Int)
	for _, d := range directives {
		args[d[0]] = append(args[d[0]], d[1])
	}
	storable = args["no-store"] == nil && args["private"] == nil
	reusable := storable && args["no-cache"] == nil
	for _, name := range strings.Split(h.Get("Vary"), ",") {
		if strings.TrimSpace(name) == "*" {
			storable, reusable = false, false
		}
	}
	if !reusable {
		return zero, storable, true
	}
	// 4.2.1: the freshness lifetime.
	stale := false
	explicit := (*big.Int)(nil)
	for _, name := range []string{"max-age", "s-maxage"} {
		if v := args[name]; len(v) > 0 {
			n, good := literalSeconds(v[0])
			stale = stale || len(v) > 1 || !good
			explicit = n
		}
	}
	date, dateErr := http.ParseTime(h.Get("Date"))
	switch expires, err := http.ParseTime(h.Get("Expires")); {
	case stale:
		return zero, storable, true
	case explicit != nil:
		lifetime = explicit
	case len(h.Values("Expires")) == 0:
		lifetime = big.NewInt(int64(lim.Default))
	case err != nil:
		return zero, storable, true
	case dateErr != nil:
		lifetime = nanosBetween(received, expires)
	default:
		lifetime = nanosBetween(date, expires)
	}
	// 4.2.3: the age.
	apparent := new(big.Int)
	if dateErr == nil {
		if apparent = nanosBetween(date, received); apparent.Sign() < 0 {
			apparent.SetInt64(0)
		}
	}
	ageValue := new(big.Int)
	first, _, _ := strings.Cut(h.Get("Age"), ",")
	if n, good := literalSeconds(strings.TrimSpace(first)); good {
		ageValue = n
	}
	corrected := new(big.Int).Add(ageValue, nanosBetween(sent, received))
	if corrected.Cmp(apparent) < 0 {
		corrected = apparent
	}
	return lifetime.Sub(lifetime, corrected), storable, true
}

// FuzzFresh holds Fresh against literalFresh, clamped to the limits.
func FuzzFresh(f *testing.F) {
	f.Add("max-age=60, max-age=9999", "3000", "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "*", uint32(0))
	f.Add(`private="a,b", s-maxage="600"`, "-1", "0", "", "Accept", uint32(1))
	f.Add("public, max-age=3600", "3000, 10", "", "Fri, 20 Nov 2026 11:00:00 GMT", "", uint32(1500))
	f.Add(`s-maxage="7200" , ,max-age=1`, "", "Fri, 20 Nov 2026 15:00:00 GMT", "Fri, 20 Nov 2026 12:00:00 GMT", "Origin", uint32(3_000_000))
	f.Add("", "99999999999999999999", "Fri, 20 Nov 2026 15:00:00 GMT", "", "", uint32(0))
	lim := FreshnessLimits{}.withDefaults()
	f.Fuzz(func(t *testing.T, cc, age, expires, date, vary string, transit uint32) {
		h := http.Header{}
		for name, v := range map[string]string{"Cache-Control": cc, "Age": age, "Expires": expires, "Date": date, "Vary": vary} {
			if v != "" {
				h.Set(name, v)
			}
		}
		sent := clock.Add(-time.Duration(transit%3_600_000) * time.Millisecond)
		got := Fresh(h, sent, clock, FreshnessLimits{})
		checkFreshness(t, got)
		want, storable, ok := literalFresh(h, sent, clock, lim)
		if !ok {
			return
		}
		clamped := lim.Ceiling
		if want.Cmp(big.NewInt(int64(lim.Floor))) < 0 {
			clamped = lim.Floor
		} else if want.Cmp(big.NewInt(int64(lim.Ceiling))) < 0 {
			clamped = time.Duration(want.Int64())
		}
		if got.Lifetime != clamped || got.Store != storable {
			t.Fatalf("%q from %v: %+v, section 4.2 has %v (%v), storable %v", h, sent, got, clamped, want, storable)
		}
	})
}

const fuzzKey = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"k1"}`

// FuzzKeys states what holds for any key set that is served: public members only,
// the kids that are promised, and a second reading that finds the same.
func FuzzKeys(f *testing.F) {
	const private = `{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"k2"}`
	for _, s := range []string{
		`{"keys":[` + fuzzKey + `]}`, `{"keys":[` + fuzzKey + `,` + private + `]}`, `{"keys":[]}`, private, `{"keys":[{"kty":"oct","k":"AA"}]}`,
		`{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB"}]}`, `{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`, `{"keys":[1,null,"x"]}`, `{"keys":{}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		set, refusal := parseKeys(body, 32<<10)
		if refusal != nil {
			if refusal.Kind != KindDocument || refusal.Rule == "" {
				t.Fatalf("error %+v", refusal)
			}
			return
		}
		var out struct{ Keys []map[string]any }
		if err := json.Unmarshal(set.json, &out); err != nil || len(out.Keys) > MaxKeys {
			t.Fatalf("%s: %v", set.json, err)
		}
		for _, k := range out.Keys {
			for name := range k {
				if !strings.Contains(" kty use alg kid crv x y n e ", " "+name+" ") {
					t.Fatalf("member %q is served: %s", name, set.json)
				}
			}
			if kid, _ := k["kid"].(string); !set.kids[kid] {
				t.Fatalf("kid %q is not known: %v", kid, set.kids)
			}
		}
		again, refusal := parseKeys(set.json, 32<<10)
		if refusal != nil || !bytes.Equal(again.json, set.json) || !reflect.DeepEqual(again.kids, set.kids) {
			t.Fatalf("a second reading of %s: %v", set.json, refusal)
		}
	})
}

// FuzzLogo states what holds for any logo that is served: a small PNG that holds
// nothing but pixels.
func FuzzLogo(f *testing.F) {
	webp, err := base64.StdEncoding.DecodeString("UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoBAAEAAwA0JaQAA3AA/vuUAAA=")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(webp)
	f.Add(manyScans(16, 3))
	small, err := png.Decode(bytes.NewReader(drawn(f, manyScans(16, 2))))
	if err != nil {
		f.Fatal(err)
	}
	for _, write := range []func(*bytes.Buffer) error{
		func(b *bytes.Buffer) error { return png.Encode(b, small) },
		func(b *bytes.Buffer) error { return jpeg.Encode(b, small, nil) },
		func(b *bytes.Buffer) error { return gif.Encode(b, small, nil) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	r, err := New(Config{Limits: Limits{LogoPixels: 64}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		out, refusal := r.redraw(body)
		if refusal != nil {
			if refusal.Rule != "CONS-07" || len(out) != 0 {
				t.Fatalf("error %+v", refusal)
			}
			return
		}
		img, err := png.Decode(bytes.NewReader(out))
		if err != nil || img.Bounds().Dx() > maxLogoSide || img.Bounds().Dy() > maxLogoSide || img.Bounds().Empty() {
			t.Fatalf("%v, %v", img, err)
		}
		for rest := out[8:]; len(rest) > 0; {
			n := int(rest[0])<<24 | int(rest[1])<<16 | int(rest[2])<<8 | int(rest[3])
			if name := string(rest[4:8]); !strings.Contains("IHDR IDAT IEND", name) {
				t.Fatalf("the PNG has a chunk %q", name)
			}
			rest = rest[12+n:]
		}
	})
}

func drawn(f *testing.F, body []byte) []byte {
	r, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	out, refusal := r.redraw(body)
	if refusal != nil {
		f.Fatal(refusal)
	}
	return out
}
