package authorize

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

func TestUserCodes(t *testing.T) {
	t.Run("DEV-03 eight letters, each as likely as the next", func(t *testing.T) {
		const codes = 20_000
		found := map[rune]int{}
		seen := map[string]bool{}
		for range codes {
			c := newUserCode()
			if len(c) != userCodeLen || strings.Trim(c, userLetters) != "" || seen[c] {
				t.Fatalf("%q", c)
			}
			seen[c] = true
			for _, l := range c {
				found[l]++
			}
		}
		const each = codes * userCodeLen / 20 // 8000, with a standard deviation of 87
		for _, l := range userLetters {
			if n := found[l]; n < each-600 || n > each+600 {
				t.Errorf("%c came %d times of %d", l, n, each)
			}
		}
	})
	t.Run("DEV-03 the letters spell no word and look like nothing else", func(t *testing.T) {
		if len(userLetters) != 20 || strings.ContainsAny(userLetters, "AEIOUY0123456789") {
			t.Error(userLetters)
		}
		n := 1
		for range userCodeLen {
			n *= len(userLetters)
		}
		if n != userCodeSpace {
			t.Errorf("there are %d codes", n)
		}
	})
	t.Run("attack DV-05: every spelling of a code is the same code", func(t *testing.T) {
		for _, typed := range []string{
			"WDJB-MJHT", "wdjb-mjht", "wdjb mjht", "WdJbMjHt", " w d j b m j h t ", "wdjb—mjht", "wdjb–mjht", "wdjb‐mjht", "wdjb−mjht",
			"ＷＤＪＢ－ＭＪＨＴ", "ｗｄｊｂ　ｍｊｈｔ", "WDJB\u00a0MJHT", "WDJB\u200bMJHT", "\ufeffWDJB-MJHT", "WD.JB_MJ/HT", "«WDJB-MJHT»",
			"WDJВ-МJНТ", "ｗdｊB-мjнт", "ⓌⒹⒿⒷⓂⒿⒽⓉ", "𝐖𝐃𝐉𝐁𝐌𝐉𝐇𝐓", "WDJB\tMJHT\r\n",
		} {
			if code, ok := parseUserCode(typed); !ok || code != "WDJBMJHT" {
				t.Errorf("%q is %q, %v", typed, code, ok)
			}
		}
		if showUserCode("WDJBMJHT") != "WDJB-MJHT" {
			t.Error(showUserCode("WDJBMJHT"))
		}
	})
	t.Run("what cannot be a code is none", func(t *testing.T) {
		for _, typed := range []string{
			"", "-", "WDJB-MJH", "WDJB-MJHTB", "WDJB-MJHA", "WDJB-MJH7", "WDJB-MJHÇ", "WDJB-MJH😀", "WDJB-MJH\x00", "WDJB-MJH\xff",
			strings.Repeat(" ", maxTyped) + "WDJBMJHT", "η ν WDJBMJ",
		} {
			if code, ok := parseUserCode(typed); ok {
				t.Errorf("%q is %q", typed, code)
			}
		}
	})
	t.Run("TOK-23 what is kept of a code depends on a key", func(t *testing.T) {
		if userCodeHash([32]byte{1}, "WDJBMJHT") == userCodeHash([32]byte{2}, "WDJBMJHT") {
			t.Error("it does not")
		}
	})
}

// disguise writes a code as somebody could type it.
func disguise(code string, r *rand.Rand) string {
	gaps := []string{"", "", "", "-", " ", "–", "\u00a0", "\u3000", "\u200b", ".", "_", "\n"}
	var b strings.Builder
	for _, c := range code {
		b.WriteString(gaps[r.IntN(len(gaps))])
		if r.IntN(2) == 0 {
			c = unicode.ToLower(c)
		}
		if r.IntN(3) == 0 {
			c += 'Ａ' - 'A' // the same letter in full width
		}
		b.WriteRune(c)
	}
	return b.String()
}

// FuzzUserCode holds the reader of codes against three things that must be so:
// a code in disguise is that code, what is read is a code and reads as itself,
// and plain ASCII is read as a filter that fits on three lines would read it.
func FuzzUserCode(f *testing.F) {
	for _, s := range []string{"WDJB-MJHT", "wdjb mjht", "ＷＤＪＢ－ＭＪＨＴ", "WDJВ-МJНТ", "WDJB-MJHA", "ﬁﬂ\u0301W", "\xff\xfe", "ſſſſſſſſ", "K K K K K K K K"} {
		f.Add(s, uint64(1))
	}
	f.Fuzz(func(t *testing.T, typed string, seed uint64) {
		r := rand.New(rand.NewPCG(seed, uint64(len(typed))))
		var b strings.Builder
		for range userCodeLen {
			b.WriteByte(userLetters[r.IntN(len(userLetters))])
		}
		if d := disguise(b.String(), r); len(d) <= maxTyped {
			if code, ok := parseUserCode(d); !ok || code != b.String() {
				t.Fatalf("%q in the disguise %q is %q, %v", b.String(), d, code, ok)
			}
		}
		code, ok := parseUserCode(typed)
		if again, same := parseUserCode(norm.NFKC.String(typed)); utf8.ValidString(typed) && len(norm.NFKC.String(typed)) <= maxTyped && len(typed) <= maxTyped && (again != code || same != ok) {
			t.Fatalf("%q is %q, its normal form %q", typed, code, again)
		}
		if !ok {
			if want, is := plain(typed); is {
				t.Fatalf("%q is refused and not %q", typed, want)
			}
			return
		}
		if len(code) != userCodeLen || strings.Trim(code, userLetters) != "" {
			t.Fatalf("%q is %q", typed, code)
		}
		if again, ok := parseUserCode(showUserCode(code)); !ok || again != code {
			t.Fatalf("%q reads as %q", code, again)
		}
		if want, ascii := plain(typed); ascii && want != code {
			t.Fatalf("%q is %q and not %q", typed, code, want)
		}
	})
}

// plain reads a code in ASCII, and reports false for anything that is none.
func plain(typed string) (string, bool) {
	var b strings.Builder
	for i := range len(typed) {
		switch c := typed[i] &^ 0x20; {
		case strings.IndexByte(userLetters, c) >= 0 && typed[i] >= 'A':
			b.WriteByte(c)
		case strings.IndexByte("\t\n\v\f\r !\"#%&'()*,-./:;?@[\\]_{}", typed[i]) < 0:
			return "", false
		}
	}
	return b.String(), len(typed) <= maxTyped && b.Len() == userCodeLen
}
