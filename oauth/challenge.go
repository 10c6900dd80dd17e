package oauth

import (
	"errors"
	"strings"
)

// Challenge is one challenge of a WWW-Authenticate header (RFC 9110 section
// 11.6.1). Params keeps the order in which the parameters were written; names
// compare without case.
type Challenge struct {
	Scheme  string
	Token68 string
	Params  []Param
}

// Param is one parameter of a challenge.
type Param struct{ Name, Value string }

// Get returns the value of a parameter, or "".
func (c Challenge) Get(name string) string {
	for _, p := range c.Params {
		if strings.EqualFold(p.Name, name) {
			return p.Value
		}
	}
	return ""
}

// String writes the challenge with every value quoted. Characters that a
// quoted string of RFC 6750 section 3 may not hold become spaces (RS-27).
func (c Challenge) String() string {
	var b strings.Builder
	b.WriteString(c.Scheme)
	sep := " "
	for _, p := range c.Params {
		if p.Value == "" {
			continue
		}
		b.WriteString(sep)
		b.WriteString(p.Name)
		b.WriteString(`="`)
		for i := range len(p.Value) {
			if ch := p.Value[i]; ch < 0x20 || ch > 0x7e || ch == '"' || ch == '\\' {
				b.WriteByte(' ')
			} else {
				b.WriteByte(ch)
			}
		}
		b.WriteByte('"')
		sep = ", "
	}
	return b.String()
}

// MaxChallenges bounds what ParseChallenges returns from one response.
const MaxChallenges = 16

// ParseChallenges reads the values of all WWW-Authenticate headers of one
// response: several challenges in a header, quoted strings with escapes, and
// token68. A parameter that stands twice in one challenge is an error.
func ParseChallenges(headers []string) ([]Challenge, error) {
	var out []Challenge
	for _, h := range headers {
		p := challengeParser{s: h}
		for {
			p.skip(" \t,")
			if p.done() {
				break
			}
			c, err := p.challenge()
			if err != nil {
				return nil, err
			}
			if out = append(out, c); len(out) > MaxChallenges {
				return nil, errors.New("too many challenges")
			}
		}
	}
	return out, nil
}

type challengeParser struct {
	s string
	i int
}

func (p *challengeParser) done() bool { return p.i >= len(p.s) }

func (p *challengeParser) skip(set string) {
	for !p.done() && strings.IndexByte(set, p.s[p.i]) >= 0 {
		p.i++
	}
}

func (p *challengeParser) token() string {
	start := p.i
	for !p.done() && tokenChar(p.s[p.i]) {
		p.i++
	}
	return p.s[start:p.i]
}

func (p *challengeParser) challenge() (Challenge, error) {
	c := Challenge{Scheme: p.token()}
	if c.Scheme == "" {
		return c, errors.New("challenge without a scheme")
	}
	if !p.done() && p.s[p.i] != ' ' && p.s[p.i] != '\t' && p.s[p.i] != ',' {
		return c, errors.New("malformed challenge")
	}
	p.skip(" \t")
	if t, ok := p.token68(); ok {
		c.Token68 = t
		return c, nil
	}
	for {
		p.skip(" \t,")
		mark := p.i
		name := p.token()
		p.skip(" \t")
		if name == "" || p.done() || p.s[p.i] != '=' {
			p.i = mark // the next challenge starts here, or the text ends
			if name == "" && !p.done() {
				return c, errors.New("malformed challenge parameter")
			}
			return c, nil
		}
		p.i++
		p.skip(" \t")
		v, err := p.value()
		if err != nil {
			return c, err
		}
		for _, q := range c.Params {
			if strings.EqualFold(q.Name, name) {
				return c, errors.New("a challenge parameter stands twice")
			}
		}
		c.Params = append(c.Params, Param{name, v})
	}
}

// token68 reads a token68 that fills the rest of the challenge.
func (p *challengeParser) token68() (string, bool) {
	j := p.i
	for j < len(p.s) && (tokenChar(p.s[j]) || p.s[j] == '/') {
		j++
	}
	body := j
	for j < len(p.s) && p.s[j] == '=' {
		j++
	}
	k := j
	for k < len(p.s) && (p.s[k] == ' ' || p.s[k] == '\t') {
		k++
	}
	if body == p.i || (k < len(p.s) && p.s[k] != ',') {
		return "", false
	}
	if k >= len(p.s) || j > body {
		t := p.s[p.i:j]
		p.i = k
		return t, true
	}
	return "", false
}

func (p *challengeParser) value() (string, error) {
	if p.done() || p.s[p.i] != '"' {
		v := p.token()
		if v == "" {
			return "", errors.New("challenge parameter without a value")
		}
		return v, nil
	}
	var b strings.Builder
	for p.i++; p.i < len(p.s); p.i++ {
		switch p.s[p.i] {
		case '"':
			p.i++
			return b.String(), nil
		case '\\':
			p.i++
			if p.done() {
				return "", errors.New("unfinished quoted string")
			}
		}
		b.WriteByte(p.s[p.i])
	}
	return "", errors.New("unfinished quoted string")
}

func tokenChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
