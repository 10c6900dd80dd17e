package server

import (
	"encoding/hex"
	"fmt"

	"github.com/bonafide-id/bonafide/internal/policy"
)

// ResourceConfig is one protected server.
type ResourceConfig struct {
	ID      string        `yaml:"id"`
	Name    string        `yaml:"name"`
	Aliases []string      `yaml:"aliases"`
	Scopes  []ScopeConfig `yaml:"scopes"`
	// DefaultScopes are granted to a request that names none.
	DefaultScopes []string `yaml:"default_scopes"`
	// IntrospectionSecretSHA256 is the hex SHA-256 of the secret with which the
	// resource may introspect its tokens.
	IntrospectionSecretSHA256 string `yaml:"introspection_secret_sha256"`
	// Details are the types of authorization_details that the server knows.
	Details []DetailConfig `yaml:"details"`
}

// DetailConfig is one type of authorization_details (RFC 9396).
type DetailConfig struct {
	Type        string              `yaml:"type"`
	Title       string              `yaml:"title"`
	Description string              `yaml:"description"`
	Scope       string              `yaml:"scope"` // that a request must have with it
	Fields      []DetailFieldConfig `yaml:"fields"`
}

// DetailFieldConfig is one particular of such a type.
type DetailFieldConfig struct {
	Name     string   `yaml:"name"`
	Title    string   `yaml:"title"`
	Kind     string   `yaml:"kind"`   // text (the default), number or boolean
	Values   []string `yaml:"values"` // the only texts there are
	Many     bool     `yaml:"many"`
	Required bool     `yaml:"required"`
	Max      int      `yaml:"max"` // characters of a text
}

// ScopeConfig is one permission, for programs and for people.
type ScopeConfig struct {
	Name        string   `yaml:"name"`
	Title       string   `yaml:"title"`
	Description string   `yaml:"description"`
	Tools       []string `yaml:"tools"`
	Implies     []string `yaml:"implies"`
}

// PolicyConfig admits clients. The first rule that matches decides.
type PolicyConfig struct {
	Default string `yaml:"default"` // allow, ask or deny
	// UnnamedScopes are the most that a client may have that no rule matches.
	UnnamedScopes *[]string    `yaml:"unnamed_scopes"`
	Rules         []RuleConfig `yaml:"rules"`
}

// RuleConfig is one rule: one of client, prefix, host and dynamic, an action,
// ceilings.
type RuleConfig struct {
	Name      string    `yaml:"name"`
	Client    string    `yaml:"client"`
	Prefix    string    `yaml:"prefix"`
	Host      string    `yaml:"host"`
	Dynamic   bool      `yaml:"dynamic"` // all clients that registered themselves
	Action    string    `yaml:"action"`
	Reason    string    `yaml:"reason"`
	Scopes    *[]string `yaml:"scopes"`
	Resources []string  `yaml:"resources"`
	Methods   []string  `yaml:"methods"`
	Grants    []string  `yaml:"grants"`
	Refresh   string    `yaml:"refresh"`
	Remember  *bool     `yaml:"remember"`
	Loopback  *bool     `yaml:"loopback"`
	SameHost  bool      `yaml:"same_host"`

	// FAPI holds the client to the FAPI 2.0 security profile.
	FAPI bool `yaml:"fapi"`
	// RequirePAR takes authorization requests from POST /par only.
	RequirePAR bool `yaml:"require_par"`
	// RequireDPoP gives tokens only to a key that the client proves to hold.
	RequireDPoP bool `yaml:"require_dpop"`
	// Device opens or closes the device flow; without it the grants decide.
	Device *bool `yaml:"device"`
	// SigningAlgs are the algorithms with which the client may sign.
	SigningAlgs []string `yaml:"signing_algs"`
	// Development marks clients that are being built.
	Development bool `yaml:"development"`
}

// PolicySet returns the policy and the resources of the configuration, checked.
func (c *Config) PolicySet() (*policy.Set, error) {
	s := &policy.Set{Default: policy.Action(c.Policy.Default), DefaultResource: c.DefaultResource}
	if u := c.Policy.UnnamedScopes; u != nil {
		s.Unnamed, s.HasUnnamed = scopes(*u), true
	}
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
		for _, d := range r.Details {
			res.Details = append(res.Details, d.detailType())
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
			Name: r.Name, Client: r.Client, Prefix: r.Prefix, Host: r.Host, Dynamic: r.Dynamic,
			Action: policy.Action(r.Action), Reason: r.Reason, Resources: r.Resources,
			Methods: r.Methods, Grants: r.Grants, Refresh: r.Refresh,
			Remember: r.Remember, Loopback: r.Loopback, SameHost: r.SameHost,
			FAPI: r.FAPI, RequirePAR: r.RequirePAR, RequireDPoP: r.RequireDPoP, Device: r.Device, SigningAlgs: r.SigningAlgs, Development: r.Development,
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

func (d DetailConfig) detailType() policy.DetailType {
	t := policy.DetailType{Type: d.Type, Title: d.Title, Description: d.Description, Scope: d.Scope}
	for _, f := range d.Fields {
		t.Fields = append(t.Fields, policy.DetailField(f))
	}
	return t
}
