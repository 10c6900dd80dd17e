package server

import "reflect"

// needRestart returns the keys in which two configurations differ although a
// reload does not change them, by their names in the file.
func needRestart(now, next *Config) []string {
	keys := differences("", reflect.ValueOf(now.fixed()), reflect.ValueOf(next.fixed()))
	if len(keys) == 0 && now.StorePath() != next.StorePath() {
		return []string{"store"}
	}
	return keys
}

// fixed returns the configuration without what a reload changes.
func (c *Config) fixed() Config {
	f := *c
	f.Policy, f.Resource, f.DefaultResource, f.RequireResource = PolicyConfig{}, nil, "", false
	f.CIMD.Enabled = false
	if f.TLS.CertFile != "" { // the files may be others; whether there are any may not change
		f.TLS = TLSConfig{CertFile: "given"}
	}
	return f
}

func differences(prefix string, a, b reflect.Value) []string {
	var out []string
	for i := range a.NumField() {
		f := a.Type().Field(i)
		name := f.Tag.Get("yaml")
		switch {
		case !f.IsExported():
			continue
		case name == "-":
			name = "--dev"
		}
		x, y := a.Field(i), b.Field(i)
		switch {
		case f.Type.Kind() == reflect.Struct:
			out = append(out, differences(prefix+name+".", x, y)...)
		case !reflect.DeepEqual(x.Interface(), y.Interface()):
			out = append(out, prefix+name)
		}
	}
	return out
}
