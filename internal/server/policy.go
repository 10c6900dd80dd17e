package server

import (
	"encoding/hex"
	"fmt"

	"github.com/bonafide-id/bonafide/internal/policy"
)

// PolicySet returns the policy and the resources of the configuration, checked.
func (c *Config) PolicySet() (*policy.Set, error) {
	s := &policy.Set{Default: policy.Action(c.Policy.Default), DefaultResource: c.DefaultResource}
	for _, r := range c.Resource {
		if h := r.IntrospectionSecretSHA256; h != "" {
			if b, err := hex.DecodeString(h); err != nil || len(b) != 32 {
				return nil, fmt.Errorf("resource %s: introspection_secret_sha256 is not 64 hexadecimal digits", r.ID)
			}
		}
		res := policy.Resource{
			ID: r.ID, Name: r.Name, Aliases: r.Aliases, Default: scopes(r.DefaultScopes),
			IntrospectionSecret: r.IntrospectionSecretSHA256,
		}
		for _, sc := range r.Scopes {
			res.Scopes = append(res.Scopes, policy.Scope(sc))
		}
		s.Resources = append(s.Resources, res)
	}
	if s.DefaultResource == "" && len(s.Resources) == 1 {
		s.DefaultResource = s.Resources[0].ID
	}
	if c.RequireResource {
		s.DefaultResource = ""
	}
	for _, r := range c.Policy.Rules {
		rule := policy.Rule{
			Name: r.Name, Client: r.Client, Prefix: r.Prefix, Host: r.Host,
			Action: policy.Action(r.Action), Reason: r.Reason, Resources: r.Resources,
			Methods: r.Methods, Grants: r.Grants, Refresh: r.Refresh,
			Remember: r.Remember, Loopback: r.Loopback, SameHost: r.SameHost,
		}
		if r.Scopes != nil {
			rule.Scopes, rule.HasScopes = scopes(*r.Scopes), true
		}
		s.Rules = append(s.Rules, rule)
	}
	if err := s.Check(); err != nil {
		return nil, err
	}
	return s, nil
}
