package main

import (
	"context"
	"strings"
)

// bound runs openid-client in one of the ways beyond the plain code grant. The
// mode says which: par, dpop, device, alone (client credentials). Clients of
// devices and those that act for themselves have documents without redirect URIs.
func (n node) bound(name, mode, alg string) func(context.Context, *house) (string, error) {
	return func(ctx context.Context, h *house) (string, error) {
		change, env := map[string]any{}, []string{"MODE=" + mode}
		if alg != "" {
			key, err := h.holdKey(name, alg, change)
			if err != nil {
				return "", err
			}
			env = append(env, "KEY="+key)
		}
		grants := map[string][]string{
			"device": {"urn:ietf:params:oauth:grant-type:device_code", "refresh_token"}, "alone": {"client_credentials"},
		}
		for way := range strings.FieldsSeq(mode) {
			if list := grants[way]; list != nil {
				change["grant_types"], change["redirect_uris"], change["response_types"] = list, []string{}, []string{}
			}
		}
		if strings.Contains(mode, "dpop") {
			change["dpop_bound_access_tokens"] = true
		}
		id, err := h.publish(name, change)
		if err != nil {
			return "", err
		}
		return n.script(ctx, h, append(env, "CLIENT_ID="+id), "js/bound.mjs")
	}
}
