package resource

import (
	"encoding/json"
	"testing"
)

// What the guard reads in a body and what encoding/json reads must be the same,
// or the guard must refuse.
func FuzzReadMessages(f *testing.F) {
	for _, s := range []string{
		callTool("create"), `[{"id":1,"method":"ping"}]`, `{"id":"\u0061","method":"tools\/call","params":{"name":"\ud83d\ude00"}}`,
		`{"method":"a","method":"b"}`, `{"id":1e9,"a":[{"}":"]"}],"method":"prompts/get","params":{"arguments":{"name":"x"},"name":"y"}}`,
		` { "id" : null , "method" : "resources/read" , "params" : { "uri" : "a:b" , "x" : [ 1 , 2 ] } } `, `{"":{}}`, `[]`, `"x"`, `{"m":"\\"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		msgs, batch, err := readMessages(body)
		if err != nil {
			return
		}
		type wire struct {
			Method string          `json:"method"`
			Params json.RawMessage `json:"params"`
		}
		var want []wire
		if batch {
			err = json.Unmarshal(body, &want)
		} else {
			want = make([]wire, 1)
			err = json.Unmarshal(body, &want[0])
		}
		if err != nil || len(want) != len(msgs) {
			t.Fatalf("accepted what encoding/json does not read: %v, %d and %d messages", err, len(msgs), len(want))
		}
		for i, m := range msgs {
			if m.method != want[i].Method {
				t.Fatalf("method %q, not %q", m.method, want[i].Method)
			}
			if m.method != "tools/call" || want[i].Params == nil {
				continue
			}
			var params struct {
				Name string `json:"name"`
			}
			if err := json.Unmarshal(want[i].Params, &params); err != nil || params.Name != m.name {
				t.Fatalf("name %q, not %q (%v)", m.name, params.Name, err)
			}
		}
	})
}
