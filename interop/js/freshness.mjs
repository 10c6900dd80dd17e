// Runs the freshness part of http-cache-tests with Node's own fetch and prints
// what came of each test: {"id": "yes" | "setup" | "depends" | reason}.
import { runTests, getResults } from 'http-cache-tests/client/runner.mjs'
import freshness from 'http-cache-tests/tests/cc-freshness.mjs'
import parse from 'http-cache-tests/tests/cc-parse.mjs'
import age from 'http-cache-tests/tests/age-parse.mjs'
import expires from 'http-cache-tests/tests/expires-freshness.mjs'
import expiresParse from 'http-cache-tests/tests/expires-parse.mjs'

const suites = [freshness, parse, age, expires, expiresParse]
await runTests(suites, fetch, false, process.env.PROXY, 25)
const results = getResults()
const out = []
for (const suite of suites) {
  for (const test of suite.tests) {
    const r = results[test.id]
    if (test.browser_only) continue
    out.push({ id: test.id, name: test.name, kind: test.kind ?? 'required', passed: r === true, why: r === true ? '' : String(r?.[1] ?? r) })
  }
}
console.log(JSON.stringify(out))
process.exit(0)
