import { expect, it } from "vitest";
import { LEFT_OUT, redact } from "../../shared/clusters/redact.ts";

const SECRET = "s3cr3t";

it.each([
  ["cloud-init", { cloudInitNoCloud: { userData: SECRET } }],
  ["cloud-init of a kind that is not known yet", { cloudInitNew: { seed: SECRET } }],
  ["user data alone", { userDataBase64: SECRET }],
  ["the network's", { networkData: SECRET }],
  ["credentials", { accessCredentials: [{ sshPublicKey: { source: { secret: { secretName: SECRET } } } }] }],
  ["Windows answers", { sysprep: { configMap: { name: SECRET } } }],
  ["annotations", { annotations: { "example/any": SECRET } }],
  ["a secret that is named", { secretRef: { name: SECRET } }],
  ["a probe's command", { exec: { command: ["login", SECRET] } }],
  ["a probe's headers", { httpGet: { httpHeaders: [{ name: "Authorization", value: SECRET }] } }],
  ["an import's headers", { http: { extraHeaders: [`Authorization: ${SECRET}`] } }],
  ["kernel arguments", { kernelBoot: { kernelArgs: SECRET } }],
  ["launch secrets", { sev: { session: SECRET, dhCert: SECRET } }],
  ["a user in an address", { url: `https://me:${SECRET}@images.example/disk` }],
  ["a signature in an address", { url: `https://images.example/disk?sig=${SECRET}#${SECRET}` }],
  ["text of several lines", { note: `#cloud-config\n${SECRET}` }],
  ["long text", { note: `${"x".repeat(600)}${SECRET}` }],
])("leaves out %s", (_what, value) => {
  const shown = JSON.stringify(redact({ spec: [value] }));

  expect(shown).not.toContain(SECRET);
  expect(shown).toContain(LEFT_OUT);
});

it("keeps everything else as it is", () => {
  const spec = {
    replicas: 3,
    paused: false,
    selector: { matchLabels: { app: "web" } },
    template: {
      automountServiceAccountToken: false,
      domain: { cpu: { cores: 2 }, resources: { requests: { memory: "128Mi" } }, devices: {} },
      volumes: [{ name: "disk", containerDisk: { image: "registry.example/cirros:1" } }],
      evictionStrategy: null,
    },
    source: { http: { url: "https://images.example/disk.img" } },
  };

  expect(redact(spec)).toEqual(spec);
});

it("ends at a depth that no pool has", () => {
  const deep = JSON.parse(`${'{"a":'.repeat(5_000)}1${"}".repeat(5_000)}`);

  expect(JSON.stringify(redact(deep))).toContain(LEFT_OUT);
});
