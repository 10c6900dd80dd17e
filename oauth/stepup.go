package oauth

// InsufficientUserAuthentication answers a request at a resource whose token is
// good, but whose person has to sign in more strongly or again (RFC 9470 section 3).
const InsufficientUserAuthentication Code = "insufficient_user_authentication"
