package main

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
)

//go:embed rows.txt
var rowsText string

//go:embed attacks.txt
var attacksText string

// rowID names a row: a requirement, or a case of the attack catalogue. The two
// share the group RS, so the kind is part of the name.
type rowID struct {
	attack bool
	name   string // such as FETCH-02
}

func (id rowID) String() string {
	if id.attack && id.group() == "RS" {
		return "attack " + id.name
	}
	return id.name
}

func (id rowID) group() string {
	g, _, _ := strings.Cut(id.name, "-")
	return g
}

// group is a chapter of the catalogue.
type group struct {
	name, title string
	rows        []row
}

type row struct {
	id   rowID
	what string // in a few words; "" for attacks, whose tests tell the case
}

// catalogue is every row that is known, in the order in which it is printed.
type catalogue struct {
	requirements, attacks []group
	known                 map[rowID]bool
}

var titles = []group{
	{name: "URL", title: "client_id URLs"},
	{name: "FETCH", title: "Fetching documents"},
	{name: "DOC", title: "Reading documents"},
	{name: "CACHE", title: "Caching"},
	{name: "META", title: "Server metadata"},
	{name: "AUTHZ", title: "Authorization endpoint"},
	{name: "CONS", title: "Consent"},
	{name: "PAR", title: "Pushed authorization requests"},
	{name: "TOK", title: "Token endpoint"},
	{name: "CAUTH", title: "Client authentication"},
	{name: "ATT", title: "Attested clients"},
	{name: "DPOP", title: "Sender-constrained tokens"},
	{name: "DEV", title: "Device flow"},
	{name: "REV", title: "Revocation"},
	{name: "INT", title: "Introspection"},
	{name: "XCH", title: "Exchange and assertions"},
	{name: "OIDC", title: "OpenID Connect"},
	{name: "DCR", title: "Dynamic registration"},
	{name: "RS", title: "Protected servers"},
	{name: "CLI", title: "Clients"},
	{name: "HOST", title: "Publishing a document"},
	{name: "POL", title: "Policy and audit"},
}

// newCatalogue reads the embedded lists.
func newCatalogue() (*catalogue, error) {
	c := &catalogue{known: map[rowID]bool{}}
	byGroup := map[string][]row{}
	for line := range content(rowsText) {
		name, what, ok := strings.Cut(line, " ")
		if !ok {
			return nil, fmt.Errorf("rows.txt: %q says nothing", line)
		}
		id := rowID{name: name}
		if c.known[id] {
			return nil, fmt.Errorf("rows.txt: %s stands there twice", name)
		}
		c.known[id] = true
		byGroup[id.group()] = append(byGroup[id.group()], row{id, what})
	}
	for _, g := range titles {
		g.rows = byGroup[g.name]
		delete(byGroup, g.name)
		c.requirements = append(c.requirements, g)
	}
	for name := range byGroup {
		return nil, fmt.Errorf("rows.txt: group %s has no title", name)
	}
	for line := range content(attacksText) {
		g, err := c.attackGroup(line)
		if err != nil {
			return nil, err
		}
		c.attacks = append(c.attacks, g)
	}
	return c, nil
}

// attackGroup reads a line such as "CU 1-5,7 | client_id URLs".
func (c *catalogue) attackGroup(line string) (group, error) {
	head, title, _ := strings.Cut(line, " | ")
	name, ranges, _ := strings.Cut(head, " ")
	g := group{name: name, title: title}
	for part := range strings.SplitSeq(ranges, ",") {
		first, last, ok := strings.Cut(part, "-")
		if !ok {
			last = first
		}
		from, err := strconv.Atoi(first)
		if err != nil {
			return g, fmt.Errorf("attacks.txt: %q: %w", line, err)
		}
		to, err := strconv.Atoi(last)
		if err != nil {
			return g, fmt.Errorf("attacks.txt: %q: %w", line, err)
		}
		for n := from; n <= to; n++ {
			id := rowID{true, fmt.Sprintf("%s-%02d", name, n)}
			c.known[id] = true
			g.rows = append(g.rows, row{id: id})
		}
	}
	return g, nil
}

// content yields the lines of a list that are neither empty nor comments.
func content(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if line != "" && !strings.HasPrefix(line, "#") && !yield(line) {
				return
			}
		}
	}
}
