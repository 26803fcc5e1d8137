// Evaluates an expression of a workflow with GitHub's own engine and prints whether it holds.
//
//   node evaluate.mjs EXPRESSION GITHUB-CONTEXT-AS-JSON
import { Evaluator, Lexer, Parser, data } from "@actions/expressions";

const [expression, github] = process.argv.slice(2);
const context = JSON.parse(JSON.stringify({ github: JSON.parse(github) }), data.reviver);
const parsed = new Parser(new Lexer(`!!(${expression})`).lex().tokens, ["github"], []).parse();
console.log(new Evaluator(parsed, context).evaluate().value);
