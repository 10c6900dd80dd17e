package cimd

import (
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
	"golang.org/x/text/unicode/norm"
)

// Limits on what is shown to people.
const (
	MaxNameRunes = 80 // of a client_name, the rest is cut off
	MaxNames     = 64 // names with a language tag, the rest is ignored (DO-19)
	maxMarks     = 4  // combining marks in a row, the rest is dropped
)

// checkNames reads client_name and its translations (DOC-12, DOC-27). A name is
// what a stranger claims: it is cleaned or dropped, and never makes a document
// invalid.
func (r *reading) checkNames() {
	if r.root.get("client_name") == nil && r.prof.nameExpected {
		r.warn("DOC-12", "client_name", "is missing; people see the host instead")
	}
	for i := range r.root.members {
		m := &r.root.members[i]
		if m.name == "client_name" {
			r.doc.Name, _ = r.cleanName(m.name, &m.val)
			continue
		}
		tag, ok := strings.CutPrefix(m.name, "client_name#")
		if !ok {
			continue
		}
		tag = strings.ToLower(tag)
		switch _, twice := r.doc.Names[tag]; {
		case !languageTag(tag) || twice:
			r.warn("DOC-21", "client_name", "has a translation whose language tag is malformed or repeated; it was ignored")
		case len(r.doc.Names) == MaxNames:
			r.warn("DOC-21", "client_name", "has too many translations; the rest was ignored")
			return
		default:
			if name, ok := r.cleanName("client_name#"+tag, &m.val); ok {
				if r.doc.Names == nil {
					r.doc.Names = map[string]string{}
				}
				r.doc.Names[strings.Clone(tag)] = name
			}
		}
	}
}

func languageTag(s string) bool {
	return s != "" && len(s) <= 35 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// cleanName returns a name fit to be shown, or false and a warning.
func (r *reading) cleanName(member string, v *value) (string, bool) {
	if v.kind != kindString {
		r.warn("DOC-27", member, "is "+v.kind.String()+", not a string, and was left out")
		return "", false
	}
	name := cleanText(v.text)
	switch {
	case name == "":
		r.warn("DOC-27", member, "has no visible character and was left out")
		return "", false
	case namesHost(name, r.id.Host()):
		r.warn("DOC-27", member, "looks like a URL or another host name and was left out; people see the host of the client_id")
		return "", false
	case utf8.RuneCountInString(name) > MaxNameRunes:
		r.warn("DOC-27", member, "is longer than 80 characters and was cut off")
		name = strings.TrimSpace(string([]rune(name)[:MaxNameRunes-1])) + "…"
	case name != v.text:
		r.warn("DOC-27", member, "holds characters that are not shown, such as direction marks; they were removed")
	}
	return strings.Clone(name), true
}

// cleanText brings text into NFC, makes one space of all white space, and
// removes what is invisible or changes how its neighbours are shown: control,
// format, direction and zero-width characters, fillers, private-use characters,
// and piles of combining marks (DOC-27).
func cleanText(s string) string {
	var b strings.Builder
	space, marks := false, 0
	for _, c := range norm.NFC.String(s) {
		switch {
		case unicode.IsSpace(c):
			space = true
			continue
		case hidden(c):
			continue
		case unicode.Is(unicode.M, c):
			if marks++; marks > maxMarks || b.Len() == 0 {
				continue
			}
		default:
			marks = 0
		}
		if space && b.Len() > 0 {
			b.WriteByte(' ')
		}
		space = false
		b.WriteRune(c)
	}
	// Removing a character can bring two together that compose.
	return norm.NFC.String(b.String())
}

// hidden reports whether a character has no glyph of its own.
func hidden(c rune) bool {
	if c < utf8.RuneSelf {
		return c < ' ' || c == 0x7f
	}
	return unicode.In(c, unicode.C, unicode.Zl, unicode.Zp,
		unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) ||
		c == 0x2800 || // braille pattern blank
		c == utf8.RuneError
}

// namesHost reports whether a name holds a URL or a host name other than the
// client's own, in any script and with any of the characters that are read as a
// dot (DOC-27).
func namesHost(name, own string) bool {
	plain := strings.ToLower(norm.NFKC.String(name))
	if strings.Contains(plain, "://") || strings.Contains(plain, "www.") {
		return true
	}
	plain = strings.ReplaceAll(plain, "\u3002", ".")
	if !strings.Contains(plain, ".") {
		return false
	}
	own = strings.ToLower(own)
	words := strings.FieldsFunc(plain, func(c rune) bool {
		return c != '.' && c != '-' && c != '_' && !unicode.In(c, unicode.L, unicode.N, unicode.M)
	})
	for _, w := range words {
		w = strings.Trim(w, ".-_")
		if hostLike(w) && w != own && w != site(own) {
			return true
		}
	}
	return false
}

// hostLike reports whether a word reads as a host name: an IPv4 address, or
// labels under a top-level domain that exists. "Node.js" does not.
func hostLike(w string) bool {
	i := strings.LastIndexByte(w, '.')
	if i <= 0 || strings.Contains(w, "..") {
		return false
	}
	if _, err := netip.ParseAddr(w); err == nil {
		return true
	}
	tld, err := idna.Punycode.ToASCII(w[i+1:])
	if err != nil {
		return false
	}
	for _, reserved := range [][]string{specialNames, testNames} {
		for _, name := range reserved {
			if tld == name {
				return true
			}
		}
	}
	_, known := publicsuffix.PublicSuffix("a.a." + tld)
	return known
}

// DisplayHost returns a host as it may be shown to people: in lower case and, if
// it is an international name, as its A-label, never decoded (CONS-15). Whoever
// has to shorten it cuts off its left end, so that the registrable domain stays
// visible.
func DisplayHost(host string) string {
	ascii, err := idna.Punycode.ToASCII(strings.ToLower(host))
	if err != nil {
		return strconv.QuoteToASCII(host)
	}
	return ascii
}

// RedirectHost returns the host of an http or https URL as [DisplayHost] shows
// it, without the port. For any other URI it returns the scheme and a colon, and
// "" if there is none.
func RedirectHost(uri string) string {
	p, f := splitURL(uri)
	if f == nil {
		return DisplayHost(p.host)
	}
	if scheme := schemeOf(uri); scheme != "" {
		return scheme + ":"
	}
	return ""
}
