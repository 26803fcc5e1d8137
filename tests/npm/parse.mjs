// Reads workflows and actions with GitHub's own parser, and prints what it reports and understands as JSON.
//
//   node parse.mjs FORGE@COMMIT=FOLDER REPOSITORY…
//
// Called workflows of the forge at the commit are read from its folder, so that the caller's inputs, secrets and
// permissions are checked against what is declared there.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { register } from "node:module";
import { join } from "node:path";

// The parser imports its schemas the way bundlers like it; Node wants to be told that they are JSON.
const loader = `export const load = (url, context, next) =>
  next(url, url.endsWith(".json") ? { ...context, importAttributes: { type: "json" } } : context);`;
register(`data:text/javascript,${encodeURIComponent(loader)}`);

const { NoOperationTraceWriter, convertWorkflowTemplate, parseWorkflow } = await import("@actions/workflow-parser");
const { parseAction } = await import("@actions/workflow-parser/actions/action-parser");
const { convertActionTemplate } = await import("@actions/workflow-parser/actions/action-template");
const { ErrorPolicy } = await import("@actions/workflow-parser/model/convert");

const [forge, ...repositories] = process.argv.slice(2);
const [address, forgeFolder] = forge.split("=");
const trace = new NoOperationTraceWriter();

function provider(repository) {
  return {
    async getFileContent(reference) {
      let folder = repository;
      if ("repository" in reference) {
        const asked = `${reference.owner}/${reference.repository}@${reference.version}`;
        if (asked !== address) throw new Error(`${asked} is not the forge under test, ${address}`);
        folder = forgeFolder;
      }
      return { name: reference.path, content: readFileSync(join(folder, reference.path), "utf8") };
    },
  };
}

async function workflow(repository, path) {
  const content = readFileSync(join(repository, path), "utf8");
  const { context, value } = parseWorkflow({ name: path, content }, trace);
  const options = { fetchReusableWorkflowDepth: 1, errorPolicy: ErrorPolicy.TryConversion };
  const template = value && (await convertWorkflowTemplate(context, value, provider(repository), options));
  const errors = [...context.errors.getErrors(), ...(template?.errors ?? [])];
  return { path, errors: errors.map((error) => error.message ?? error.Message), on: template?.events ?? {} };
}

function action(repository, path) {
  const content = readFileSync(join(repository, path), "utf8");
  const { context, value } = parseAction({ name: path, content }, trace);
  if (value) convertActionTemplate(context, value, { errorPolicy: ErrorPolicy.TryConversion });
  return { path, errors: context.errors.getErrors().map((error) => error.message) };
}

function listed(repository, folder, file) {
  const place = join(repository, folder);
  if (!existsSync(place)) return [];
  return readdirSync(place).map((name) => file(join(folder, name))).filter((path) => existsSync(join(repository, path)));
}

const result = {};
for (const repository of repositories) {
  const workflows = listed(repository, ".github/workflows", (path) => path).filter((path) => /\.ya?ml$/.test(path));
  const actions = listed(repository, "shared_workflows", (path) => join(path, "action.yml"));
  result[repository] = [
    ...(await Promise.all(workflows.map((path) => workflow(repository, path)))),
    ...actions.map((path) => action(repository, path)),
  ];
}
console.log(JSON.stringify(result));
