import { expect, it } from "vitest";
import { CLUSTER_HELP } from "../../infra/cli/cluster-help.ts";
import { parseClusterOptions } from "../../infra/cli/cluster-options.ts";

const TOKEN = ["--server", "https://api.example", "--token-stdin"];
const EKS = ["--eks", "prod", "--region", "eu-west-1"];

it.each([
  [[], "a command is missing: there are add, list, show, check, mode, rotate, credentials, remove"],
  [["install", "west"], '"install" is no command'],
  [["check"], "say which cluster"],
  [["check", "West!"], '"West!" is no name of a cluster'],
  [["check", "west", "act"], '"act" is too much'],
  [["list", "west"], '"west" is too much'],
  [["mode", "west"], "say which mode"],
  [["mode", "west", "off"], 'the mode is observe or act, not "off"'],
  [["mode", "west", "act", "now"], '"now" is too much'],
  [["check", "west", "--registry", "a", "--dir", "b"], "--registry and --dir both name the registry"],
  [["check", "west", "--ssm-prefix", "/a", "--dir", "b"], "--dir and --ssm-prefix both name the registry"],
  [["check", "west", "--ssm-prefix", "clusters/"], "--ssm-prefix is a path such as /vmpool-functions/clusters"],
  [["check", "west", "--context", "a"], "--context needs --kubeconfig"],
  [["check", "west", "--events"], "--events needs --kubeconfig"],
  [["check", "west", "--wait-seconds", "0"], "--wait-seconds is a whole number from 1 to 900"],
  [["check", "west", "--dir", ""], "--dir is empty"],
  [["check", "west", "-o", "yaml"], "--output is text or json"],
  [["check", "west", "--force"], "--force"],
  [["check", "west", "--replace"], "--replace is no option of check"],
  [["list", "--kubeconfig", "a"], "--kubeconfig is no option of list"],
  [["add", "west"], "say how to reach the cluster: --server with --token-file"],
  [["add", "west", ...TOKEN, "--eks", "prod"], "--token-stdin and --eks are two ways to reach the cluster"],
  [["add", "west", "--token-file", "t"], "--token-file needs --server"],
  [["add", "west", "--server", "https://api.example", "--client-key", "k"], "go together"],
  [
    ["add", "west", "--from-context", "a", "--server", "https://api.example"],
    "--server does not go with --from-context",
  ],
  [["add", "west", ...TOKEN, "--role-arn", "arn"], "--role-arn does not go with --token-stdin"],
  [["add", "west", ...TOKEN, "--endpoint", "http://api.example"], "--endpoint is the https address"],
  [["add", "west", ...TOKEN, "--source", "smoke"], "--source is admission, audit,"],
  [["add", "west", ...TOKEN, "--source", "gke"], "--oidc-subject is missing"],
  [["add", "west", ...TOKEN, "--source", "oidc", "--oidc-subject", "me"], "--oidc-issuer is missing"],
  [["add", "west", ...TOKEN, "--source", "gke,knative", "--oidc-subject", "me"], "need two issuers"],
  [["add", "west", ...TOKEN, "--oidc-subject", "me"], "--oidc-… needs --source"],
  [["add", "west", ...TOKEN, "--namespaces", "ci,Lab"], '--namespaces: "Lab" is no name of a namespace'],
  [["add", "west", ...TOKEN, "--service-account"], "--service-account needs --from-context and --apply"],
  [["rotate", "west", "--drop-old", "--drop-new"], "leave nothing"],
  [["rotate", "west", "--drop-old", "--apply"], "--drop-old only changes the registry"],
] as const)("refuses %j", (args, message) => {
  expect(parseClusterOptions(args)).toEqual({ kind: "wrong", message: expect.stringContaining(message) });
});

it("shows its options, all of them", () => {
  expect(parseClusterOptions(["--help"])).toEqual({ kind: "help", text: CLUSTER_HELP });
});

it.each([
  [TOKEN, { kind: "token", server: "https://api.example", certificateAuthority: undefined, file: "-" }],
  [EKS, { kind: "eks", clusterName: "prod", region: "eu-west-1", roleArn: undefined }],
  [
    [...EKS, "--eks-region", "us-east-1"],
    { kind: "eks", clusterName: "prod", region: "us-east-1", roleArn: undefined },
  ],
  [["--from-context", "lab"], { kind: "context", context: "lab" }],
  [
    [
      "--server",
      "https://api.example",
      "--client-certificate",
      "c",
      "--client-key",
      "k",
      "--certificate-authority",
      "a",
    ],
    {
      kind: "clientCertificate",
      server: "https://api.example",
      certificateAuthority: "a",
      certificate: "c",
      key: "k",
    },
  ],
] as const)("reads the credentials of %j", (args, credentials) => {
  expect(parseClusterOptions(["add", "west", ...args])).toMatchObject({ kind: "options", options: { credentials } });
});

it("takes admission as the source unless told otherwise, and lists in one word or several", () => {
  const read = (...args: readonly string[]) => parseClusterOptions(["add", "west", ...TOKEN, ...args]);
  expect(read()).toMatchObject({ options: { sources: ["admission"], namespaces: undefined, users: true } });
  expect(read("--source", "none")).toMatchObject({ options: { sources: [] } });
  expect(read("--source", "audit, admission", "--source", "audit")).toMatchObject({
    options: { sources: ["audit", "admission"] },
  });
  expect(read("--namespaces", "ci, lab,ci", "--no-user-roles", "--endpoint", "https://x.example/prod/")).toMatchObject({
    options: { namespaces: ["ci", "lab"], users: false, endpoint: "https://x.example/prod" },
  });
});
