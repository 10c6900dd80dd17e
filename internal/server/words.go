package server

import "regexp"

// inWords says what the YAML reader says as a person would who wrote the file:
// with the line, and without the types of this program.
func inWords(text string) string {
	for _, s := range sayings {
		text = s.pattern.ReplaceAllString(text, s.words)
	}
	return text
}

var sayings = []struct {
	pattern *regexp.Regexp
	words   string
}{
	{regexp.MustCompile(`^yaml: unmarshal errors:\n\s*`), ""},
	{regexp.MustCompile(`^yaml: `), ""},
	{regexp.MustCompile("`\\s*`"), "`nothing`"},
	{regexp.MustCompile(`field (\S+) not found in type \S+`), "unknown key $1"},
	{regexp.MustCompile("cannot unmarshal !!\\w+ `(.*)` into time.Duration"), "$1 is not a span of time such as 10m or 24h"},
	{regexp.MustCompile("cannot unmarshal !!\\w+ `(.*)` into \\[\\]\\S+"), "$1 stands where a list belongs, such as [$1]"},
	{regexp.MustCompile("cannot unmarshal !!\\w+ `(.*)` into \\*?bool"), "$1 is neither true nor false"},
	{regexp.MustCompile("cannot unmarshal !!\\w+ `(.*)` into u?int\\d*"), "$1 is not a whole number"},
	{regexp.MustCompile("cannot unmarshal !!\\w+ `(.*)` into \\S+"), "$1 stands where keys with values belong"},
	{regexp.MustCompile(`cannot unmarshal !!seq into \S+`), "a list stands where it does not belong"},
	{regexp.MustCompile(`cannot unmarshal !!map into \S+`), "keys with values stand where they do not belong"},
	{regexp.MustCompile(`mapping key "(.*)" already defined at line (\d+)`), "$1 stands twice, first at line $2"},
	{regexp.MustCompile(`found character that cannot start any token`), "something that YAML does not know begins here; indent with spaces, not with tabs"},
}
