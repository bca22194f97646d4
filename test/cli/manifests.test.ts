import { expect, it } from "vitest";
import { knativeSender, type ManifestOptions, manifestsFor, rightsNeeded } from "../../infra/kubernetes/manifests.ts";

const ACCOUNT = { kind: "serviceAccount", namespace: "vmpool-functions" } as const;

function theManifests(options: Partial<ManifestOptions> = {}) {
  return manifestsFor({
    cluster: "prod-eu",
    endpoint: "https://functions.example.com",
    identity: { kind: "group" },
    sources: [],
    users: false,
    ...options,
  });
}

/** Such as `RoleBinding ci/vmpool-functions`. */
function namesOf(objects: ReturnType<typeof manifestsFor>): readonly string[] {
  return objects.map(({ kind, metadata: { name, namespace } }) =>
    [kind, [...(namespace === undefined ? [] : [namespace]), name].join("/")].join(" "),
  );
}

const ROLES = ["ClusterRole vmpool-functions", "ClusterRole vmpool-functions-cluster"];
const FLOW = "FlowSchema vmpool-functions";

it("gives the group its roles and a flow, and nothing that nobody asked for", () => {
  expect(namesOf(theManifests())).toEqual([
    ...ROLES,
    "ClusterRoleBinding vmpool-functions",
    "ClusterRoleBinding vmpool-functions-cluster",
    FLOW,
  ]);
});

it("makes a ServiceAccount, in its namespace, before anything that names it", () => {
  const objects = theManifests({ identity: { kind: "serviceAccount", namespace: "robots" } });

  expect(namesOf(objects)).toEqual([
    "Namespace robots",
    "ServiceAccount robots/vmpool-functions",
    "Secret robots/vmpool-functions",
    ...ROLES,
    "ClusterRoleBinding vmpool-functions",
    "ClusterRoleBinding vmpool-functions-cluster",
    FLOW,
  ]);
  const subjects = [{ kind: "ServiceAccount", name: "vmpool-functions", namespace: "robots" }];
  const bindings = objects.filter(({ kind }) => kind === "ClusterRoleBinding");
  expect(bindings).toMatchObject(bindings.map(() => ({ subjects })));
  const serviceAccount = { name: "vmpool-functions", namespace: "robots" };
  expect(objects.at(-1)).toMatchObject({
    spec: { rules: [{ subjects: [{ kind: "ServiceAccount", serviceAccount }, {}, {}] }] },
  });
});

it("binds the role in the served namespaces alone, and what is of the cluster in the cluster", () => {
  const objects = theManifests({ namespaces: ["ci", "web"] });

  expect(namesOf(objects).filter((name) => name.includes("Binding"))).toEqual([
    "RoleBinding ci/vmpool-functions",
    "RoleBinding web/vmpool-functions",
    "ClusterRoleBinding vmpool-functions-cluster",
  ]);
});

it("adds what users need when that is asked for", () => {
  expect(namesOf(theManifests({ users: true })).filter((name) => name.includes("scale"))).toEqual([
    "ClusterRole vmpool-functions-scale-edit",
    "ClusterRole vmpool-functions-scale-view",
  ]);
});

it("asks at the address of the cluster, with the token in the path and nowhere else", () => {
  const pathToken = "a-token-in-the-path";
  const objects = theManifests({ sources: ["admission", "knative"], pathToken, caBundle: "Y2E=" });

  const webhooks = objects.filter(({ kind }) => kind === "ValidatingWebhookConfiguration");
  const url = `https://functions.example.com/clusters/prod-eu/admission/${pathToken}`;
  expect(webhooks).toMatchObject([
    { webhooks: [{ clientConfig: { url, caBundle: "Y2E=" } }] },
    { webhooks: [{ clientConfig: { url } }, { clientConfig: { url } }] },
  ]);
  expect(objects.slice(-2)).toEqual(webhooks);
  expect(JSON.stringify(objects).split(pathToken)).toHaveLength(4);
});

it("refuses an admission webhook without a token", () => {
  expect(() => theManifests({ sources: ["admission"] })).toThrow("needs a token for its path");
});

it("lets Knative watch the version that the cluster serves, and trusts the authority that is given", () => {
  const caBundle = Buffer.from("PEM of an authority").toString("base64");
  const objects = theManifests({ sources: ["knative"], caBundle, poolVersion: "v1alpha1", namespaces: ["ci"] });

  expect(namesOf(objects)).toContain("RoleBinding ci/vmpool-functions-events");
  expect(objects.at(-1)).toMatchObject({
    kind: "ApiServerSource",
    spec: {
      resources: [{ apiVersion: "pool.kubevirt.io/v1alpha1" }, {}, {}],
      namespaceSelector: { matchExpressions: [{ values: ["ci"] }] },
      sink: { CACerts: "PEM of an authority" },
    },
  });
});

it("knows the account that Knative makes for the source, whose name is short enough to stand in it", () => {
  const [source] = theManifests({ sources: ["knative"], identity: ACCOUNT }).slice(-1);
  const name = source?.metadata.name ?? "";
  const { subject } = knativeSender({ cluster: "c", endpoint: "https://e", identity: ACCOUNT });

  expect(subject).toBe(`system:serviceaccount:vmpool-functions:${name}-oidc-sources.knative.dev-apiserversource`);
  expect(name.length).toBeLessThanOrEqual(63 - "-oidc-sources.knative.dev-apiserversource".length);
});

it("says each right that the roles give, and which of them are of the cluster", () => {
  const rights = rightsNeeded();

  expect(rights).toContainEqual({
    group: "pool.kubevirt.io",
    resource: "virtualmachinepools",
    subresource: "scale",
    verb: "update",
    scope: "namespace",
  });
  expect(rights.filter(({ scope }) => scope === "cluster")).toEqual([
    { group: "kubevirt.io", resource: "kubevirts", verb: "list", scope: "cluster" },
  ]);
  const wildcards = rights.filter((right) => Object.values(right).includes("*"));
  expect(wildcards).toEqual([]);
});
