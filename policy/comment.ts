import { readFileSync } from "fs";

/** How one forge keeps the comments of a request: the same four facts of GitHub and of GitLab. */
interface Forge {
  /** Lists the comments, oldest first, one page after another. */
  readonly list: string;
  /** Changes the comment with this id. */
  readonly edit: (id: number) => string;
  readonly editMethod: "PATCH" | "PUT";
  readonly headers: Readonly<Record<string, string>>;
}

/**
 * Which forge this runs on and how to reach the request's comments, from the variables that its CI sets.
 * @throws Error that names the variable that is missing.
 */
export function forge(env: Readonly<Record<string, string | undefined>>): Forge {
  const need = (name: string) => {
    const value = env[name];
    if (!value) throw new Error(`${name} is not set`);
    return value;
  };
  if (env.GITLAB_CI) {
    const request = `${need("CI_API_V4_URL")}/projects/${need("CI_PROJECT_ID")}/merge_requests/${need("CI_MERGE_REQUEST_IID")}`;
    return {
      list: `${request}/notes?sort=asc&`,
      edit: (id) => `${request}/notes/${id}`,
      editMethod: "PUT",
      headers: { "PRIVATE-TOKEN": need("GITLAB_TOKEN") },
    };
  }
  const repository = `${need("GITHUB_API_URL")}/repos/${need("GITHUB_REPOSITORY")}/issues`;
  return {
    list: `${repository}/${need("PULL_REQUEST")}/comments?`,
    edit: (id) => `${repository}/comments/${id}`,
    editMethod: "PATCH",
    headers: { authorization: `Bearer ${need("GITHUB_TOKEN")}`, accept: "application/vnd.github+json" },
  };
}

/**
 * Puts a text under a pull or merge request: in place of the comment that begins with the same line, else as a new one.
 * @returns what was done
 */
export async function putComment(
  text: string,
  { list, edit, editMethod, headers }: Forge,
): Promise<"changed" | "added"> {
  const marker = text.split("\n")[0] ?? "";
  const json = { ...headers, "content-type": "application/json" };
  for (let page = 1; ; page++) {
    const comments = (await call(`${list}per_page=100&page=${page}`, { headers })) as { id: number; body?: string }[];
    const mine = comments.find(({ body }) => body?.startsWith(marker));
    if (mine) {
      await call(edit(mine.id), { method: editMethod, headers: json, body: JSON.stringify({ body: text }) });
      return "changed";
    }
    if (comments.length < 100) break;
  }
  await call(list.split("?")[0] ?? "", { method: "POST", headers: json, body: JSON.stringify({ body: text }) });
  return "added";
}

async function call(url: string, init: RequestInit): Promise<unknown> {
  const answer = await fetch(url, { ...init, signal: AbortSignal.timeout(30_000) });
  if (!answer.ok) {
    throw new Error(`${init.method ?? "GET"} ${url}: ${answer.status} ${(await answer.text()).slice(0, 200)}`);
  }
  return answer.json();
}

if (require.main === module) {
  const [file = ""] = process.argv.slice(2);
  Promise.resolve()
    .then(() => putComment(readFileSync(file, "utf8"), forge(process.env)))
    .then((done) => process.stdout.write(`comment ${done}\n`))
    .catch((error: unknown) => {
      process.stderr.write(`comment: ${(error as Error).message}\n`);
      process.exitCode = 1;
    });
}
