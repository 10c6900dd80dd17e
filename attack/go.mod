module github.com/bonafide-id/bonafide/attack

go 1.26.0

replace github.com/bonafide-id/bonafide => ../

require golang.org/x/net v0.62.0
