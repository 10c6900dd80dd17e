module github.com/bonafide-id/bonafide/attack

go 1.26.0

replace github.com/bonafide-id/bonafide => ../

require (
	github.com/bonafide-id/bonafide v0.0.0-00010101000000-000000000000
	golang.org/x/net v0.62.0
)

require (
	code.dny.dev/ssrf v0.3.0 // indirect
	github.com/go-jose/go-jose/v4 v4.1.8 // indirect
	golang.org/x/oauth2 v0.37.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
