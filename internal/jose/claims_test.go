package jose

import (
	"encoding/json"
	"errors"
	"testing"
)

func TestReadClaims(t *testing.T) {
	var sub string
	var amr []string
	var events map[string]json.RawMessage
	read := func(raw string) error {
		_, err := ReadClaims([]byte(raw), map[string]any{"sub": &sub, "amr": &amr, "events": &events})
		return err
	}
	if err := read(`{"sub":"u\u00e9\\u0000","SUB":"other","amr":["pwd"],"events":{"e":{}},"rest":"\u0000"}`); err != nil || sub != `ué\u0000` || len(amr) != 1 || len(events) != 1 {
		t.Errorf("%v: %q %v %v", err, sub, amr, events)
	}
	for name, raw := range map[string]string{
		"a NUL": `{"sub":"u\u0000"}`, "a NUL in a list": `{"amr":["pwd","\u0000"]}`, "a NUL in a name": `{"events":{"\u0000":{}}}`,
		"a NUL deep inside": `{"events":{"a":{"b":["\u0000"]}}}`, "half of a pair": `{"sub":"\ud800"}`, "the other half": `{"sub":"\udc00x"}`,
		"what stands for something lost": "{\"sub\":\"\ufffd\"}",
	} {
		t.Run("OIDC-05, XCH-10 text that no store keeps: "+name, func(t *testing.T) {
			if err := read(raw); !errors.Is(err, ErrText) {
				t.Errorf("%v", err)
			}
		})
	}
	for name, raw := range map[string]string{
		"a wrong type": `{"sub":7}`, "bytes that are no UTF-8": "{\"sub\":\"\xff\"}", "a member twice": `{"sub":"a","sub":"b"}`, "no object": `[]`,
	} {
		if err := read(raw); err == nil || errors.Is(err, ErrText) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
