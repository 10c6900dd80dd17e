package server

import (
	"strings"
	"testing"
)

func TestRegistrationSettings(t *testing.T) {
	const base = "issuer: https://as.test\nresources: [{id: https://mcp.test/mcp, name: Tools}]\n"
	for _, c := range []struct{ name, text, says string }{
		{"DCR-01 it is there to be switched on", "registration: {enabled: true, life: 24h, application_type: native}", ""},
		{"DCR-01 too short a life", "registration: {enabled: true, life: 1m}", "registration.life"},
		{"DCR-01 nobody an hour", "registration: {enabled: true, per_hour: 0}", "per_hour"},
		{"DCR-01 everybody", "registration: {enabled: true, most: 10000000}", "registration.most"},
		{"DCR-03 another type", "registration: {enabled: true, application_type: browser}", "application_type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := Parse([]byte(base+c.text), t.TempDir(), false)
			if c.says == "" && (err != nil || !cfg.Registration.Enabled) || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("DCR-01 it is off", func(t *testing.T) {
		if cfg, err := Parse([]byte(base), t.TempDir(), false); err != nil || cfg.Registration.Enabled {
			t.Errorf("%+v, %v", cfg, err)
		}
	})
}
