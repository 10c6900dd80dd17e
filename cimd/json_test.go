package cimd

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestParseObject(t *testing.T) {
	deep := func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	rows := []struct{ name, src string }{
		{"DOC-01, attack DO-03: a duplicate name", `{"a":1,"a":2}`},
		{"DOC-01, attack DO-03: a duplicate name below the top", `{"x":[{"a":1,"b":2,"a":2}]}`},
		{"DOC-01, attack DO-03: a duplicate name after unescaping", `{"a":1,"\u0061":2}`},
		{"DOC-01, attack DO-06: two documents", `{"a":1}{"b":2}`},
		{"DOC-01, attack DO-06: trailing text", `{"a":1} x`},
		{"DOC-01, attack DO-06: a byte order mark", "\ufeff{}"},
		{"DOC-01, attack DO-06: a comment", `{/* x */"a":1}`},
		{"DOC-01, attack DO-06: a line comment", "{} // x"},
		{"DOC-01, attack DO-06: a trailing comma", `{"a":1,}`},
		{"DOC-01, attack DO-06: a trailing comma in an array", `{"a":[1,]}`},
		{"DOC-01, attack DO-06: single quotes", `{'a':1}`},
		{"DOC-01, attack DO-06: NaN", `{"a":NaN}`},
		{"DOC-01, attack DO-06: Infinity", `{"a":-Infinity}`},
		{"DOC-01, attack DO-07: invalid UTF-8", "{\"a\":\"\xff\"}"},
		{"DOC-01, attack DO-07: an encoded surrogate", "{\"a\":\"\xed\xa0\x80\"}"},
		{"DOC-01, attack DO-07: an overlong encoding", "{\"a\":\"\xc0\xaf\"}"},
		{"DOC-01, attack DO-07: a lone high surrogate", `{"a":"\ud800"}`},
		{"DOC-01, attack DO-07: a high surrogate before a letter", `{"a":"\ud800\u0041"}`},
		{"DOC-01, attack DO-07: a lone low surrogate", `{"a":"\udc00"}`},
		{"DOC-01, attack DO-07: surrogates in the wrong order", `{"a":"\udc00\ud800"}`},
		{"DOC-01, attack DO-07: NUL", `{"a":"x\u0000"}`},
		{"DOC-01, attack DO-07: a raw control character", "{\"a\":\"x\ny\"}"},
		{"DOC-01, attack DO-08: 10,000 nested arrays", deep(10000)},
		{"DOC-01, attack DO-08: one level too deep", deep(MaxDepth)},
		{"DOC-01, attack DO-08: a number beyond a double", `{"a":1e400}`},
		{"DOC-01, attack DO-08: an integer of 4,000 digits", `{"a":` + strings.Repeat("9", 4000) + `}`},
		{"DOC-01, attack DO-09: an array", `[]`},
		{"DOC-01, attack DO-09: a string", `"x"`},
		{"DOC-01, attack DO-09: null", `null`},
		{"DOC-01, attack DO-09: a number", `1`},
		{"DOC-01, attack DO-19: 200 unknown members", manyMembers(200)},
		{"DOC-01, attack DO-19: 1,000 contacts", `{"contacts":["a"` + strings.Repeat(`,"a"`, 999) + `]}`},
		{"DOC-01 too many values", `{"a":[` + strings.Repeat(`[`+strings.Repeat("1,", 100)+`1],`, 60) + `1]}`},
		{"DOC-01 nothing", ``},
		{"DOC-01 only space", "  \n"},
		{"DOC-01 an open object", `{"a":1`},
		{"DOC-01 an open string", `{"a":"x`},
		{"DOC-01 an open escape", `{"a":"x\`},
		{"DOC-01 a short unicode escape", `{"a":"\u12"}`},
		{"DOC-01 an unknown escape", `{"a":"\x41"}`},
		{"DOC-01 an unquoted name", `{a:1}`},
		{"DOC-01 a missing colon", `{"a" 1}`},
		{"DOC-01 a missing comma", `{"a":1 "b":2}`},
		{"DOC-01 a missing value", `{"a":}`},
		{"DOC-01 a leading zero", `{"a":01}`},
		{"DOC-01 a leading plus", `{"a":+1}`},
		{"DOC-01 a number without digits after the point", `{"a":1.}`},
		{"DOC-01 a number without digits before the point", `{"a":.5}`},
		{"DOC-01 an exponent without digits", `{"a":1e}`},
		{"DOC-01 a lone minus", `{"a":-}`},
		{"DOC-01 a hexadecimal number", `{"a":0x10}`},
		{"DOC-01 upper-case true", `{"a":True}`},
		{"DOC-01 other white space", "{\"a\":\u00a01}"},
		{"DOC-01 too large", `{"a":"` + strings.Repeat("x", MaxDocument) + `"}`},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			v, err := parseObject(r.src)
			if err == nil {
				t.Fatalf("accepted: %v", v)
			}
			if d := fastest(func() { _, _ = parseObject(r.src) }); d > 50*time.Millisecond {
				t.Errorf("took %v", d)
			}
			if len(err.Error()) > 120 {
				t.Errorf("the error is too long: %v", err)
			}
		})
	}
}

func manyMembers(n int) string {
	var b strings.Builder
	b.WriteString(`{"client_id":"x"`)
	for i := range n {
		b.WriteString(`,"x-` + strings.Repeat("y", i) + `":1`)
	}
	return b.String() + "}"
}

func TestParseObjectValues(t *testing.T) {
	src := ` { "s" : "a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é" , "n":[0,-0,1.5,-12e-3,1E+2], "t":true,"f":false,"z":null,"o":{},"A":"case","a":[],"":1 } `
	v, err := parseObject(src)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("DOC-01 strings are unescaped", func(t *testing.T) {
		if got := v.get("s").text; got != "a\"\\/\b\f\n\r\té\U0001F600é" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("attack DO-04: names are compared with their case", func(t *testing.T) {
		if v.get("A").kind != kindString || v.get("a").kind != kindArray || v.get("S") != nil {
			t.Error("names were folded")
		}
	})
	t.Run("DOC-01 each value has its extent", func(t *testing.T) {
		n := v.get("n")
		if got := src[n.start:n.end]; got != "[0,-0,1.5,-12e-3,1E+2]" {
			t.Errorf("got %q", got)
		}
		if !v.get("t").truth || v.get("f").truth || v.get("z").kind != kindNull || v.get("o").kind != kindObject {
			t.Error("values have the wrong type")
		}
	})
	t.Run("attack DO-08: a string of 5,000 escapes is cheap", func(t *testing.T) {
		src := `{"a":"` + strings.Repeat(`\u0041`, 5000) + `"}`
		v, err := parseObject(src)
		if err != nil || len(v.get("a").text) != 5000 {
			t.Error(err)
		}
		if d := fastest(func() { _, _ = parseObject(src) }); d > 50*time.Millisecond {
			t.Errorf("took %v", d)
		}
	})
	t.Run("DOC-01 the depth and member limits themselves are accepted", func(t *testing.T) {
		n := MaxDepth - 1
		if _, err := parseObject(`{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`); err != nil {
			t.Error(err)
		}
		if _, err := parseObject(manyMembers(MaxMembers - 1)); err != nil {
			t.Error(err)
		}
	})
}

// fastest returns the shortest of several runs: a busy machine makes some of them
// slow, work that grows out of bounds makes all of them slow.
func fastest(do func()) time.Duration {
	best := time.Duration(math.MaxInt64)
	for range 10 {
		start := time.Now()
		do()
		best = min(best, time.Since(start))
	}
	return best
}
