import type { DescribeClusterCommand } from "@aws-sdk/client-eks";
import { expect, it } from "vitest";
import type { EksAuth } from "../../shared/clusters/access.ts";
import { type Credentials, type EksOptions, openEksCluster, presignToken } from "../../shared/clusters/eks.ts";
import { UnreachableError } from "../../shared/clusters/unreachable.ts";
import { NOW } from "../support/transport-objects.ts";

const AUTH: EksAuth = { kind: "eks", clusterName: "prod", region: "eu-central-1" };
const ROLE = "arn:aws:iam::123456789012:role/reader";
/** Of AWS' own examples. */
const KEYS: Credentials = {
  accessKeyId: "AKIDEXAMPLE",
  secretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
};
const MINUTE_MS = 60_000;
const ACTIVE = {
  status: "ACTIVE",
  endpoint: "https://ABC.gr7.eu-central-1.eks.amazonaws.com",
  certificateAuthority: { data: "Q0E=" },
};

class AwsError extends Error {
  constructor(name: string) {
    super("User: arn:aws:sts::123456789012:assumed-role/s3cr3t is not authorized");
    this.name = name;
  }
}

/** EKS that gives these answers in order, the last of them again and again, to a caller with these credentials. */
function anEks(answers: readonly unknown[] = [ACTIVE], credentials: () => Promise<Credentials> = async () => KEYS) {
  const asked: unknown[] = [];
  const clock = { now: NOW };
  const client = {
    config: { credentials },
    async send({ input }: { readonly input: DescribeClusterCommand["input"] }) {
      const answer = answers[Math.min(asked.length, answers.length - 1)];
      asked.push(input);
      if (answer instanceof Error) throw answer;
      return { $metadata: {}, cluster: answer };
    },
  };
  const given: NonNullable<EksOptions["client"]> = Object.assign(Object.create(null), client);
  const open = (auth = AUTH) => openEksCluster(auth, { client: given, now: () => clock.now });
  return { asked, clock, open };
}

/** The signed request within a token. */
function requestOf(token: string): URL {
  expect(token).toMatch(/^k8s-aws-v1\.[\w-]+$/);
  return new URL(Buffer.from(token.slice("k8s-aws-v1.".length), "base64url").toString());
}

const AT = Date.parse("2026-05-01T12:00:00Z");

// What botocore 1.44 makes of the same names, keys and time: the signer of `aws eks get-token`.
it.each([
  {
    region: "eu-central-1",
    sessionToken: undefined,
    host: "sts.eu-central-1.amazonaws.com",
    signature: "878315025a7dfdc4a768bd5db217fc98491df6c3e4182a0091cc8dafa670f7b2",
  },
  {
    region: "eu-central-1",
    sessionToken: "FwoGZXIvYXdzEXAMPLE/token+==",
    host: "sts.eu-central-1.amazonaws.com",
    signature: "bdc6d284497c144e79476d3588aca2e996fdcc7aa4511552a8a59edf00b4d7e7",
  },
  {
    region: "cn-north-1",
    sessionToken: undefined,
    host: "sts.cn-north-1.amazonaws.com.cn",
    signature: "7bbe62f443c728f7555202d2ef7c7f43caf2a8539f5400c315df875372505a7f",
  },
])("signs what the AWS command line signs: $host, session token $sessionToken", async (golden) => {
  const { region, sessionToken, host, signature } = golden;
  const url = requestOf(await presignToken({ ...AUTH, region }, { ...KEYS, sessionToken }, AT));

  expect(url.origin).toBe(`https://${host}`);
  expect(url.pathname).toBe("/");
  expect(Object.fromEntries(url.searchParams)).toEqual({
    Action: "GetCallerIdentity",
    Version: "2011-06-15",
    "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
    "X-Amz-Credential": `AKIDEXAMPLE/20260501/${region}/sts/aws4_request`,
    "X-Amz-Date": "20260501T120000Z",
    "X-Amz-Expires": "60",
    "X-Amz-SignedHeaders": "host;x-k8s-aws-id",
    ...(sessionToken === undefined ? {} : { "X-Amz-Security-Token": sessionToken }),
    "X-Amz-Signature": signature,
  });
});

it("keeps a token for 14 minutes", async () => {
  const { clock, open } = anEks();
  const cluster = open();
  const first = await cluster.token();
  clock.now += 14 * MINUTE_MS - 1;
  expect(await cluster.token()).toBe(first);
  clock.now += 1;

  expect(await cluster.token()).not.toBe(first);
});

it("keeps a token no longer than the credentials live that signed it", async () => {
  const expiration = new Date(NOW + 5 * MINUTE_MS);
  const { clock, open } = anEks([ACTIVE], async () => ({ ...KEYS, expiration }));
  const cluster = open();
  const first = await cluster.token();
  clock.now += 4 * MINUTE_MS;
  expect(await cluster.token()).toBe(first);
  clock.now += MINUTE_MS - 30_000;

  expect(await cluster.token()).not.toBe(first);
});

it("makes another token after a refusal, once a minute at most", async () => {
  const { clock, open } = anEks();
  const cluster = open();
  const first = await cluster.token();
  clock.now += MINUTE_MS - 1;
  cluster.refuse();
  expect(await cluster.token()).toBe(first);
  clock.now += 1;
  cluster.refuse();
  const second = await cluster.token();
  expect(second).not.toBe(first);
  clock.now += 1_000;
  cluster.refuse();

  expect(await cluster.token()).toBe(second);
});

it("asks EKS for address and authority, and again after five minutes or a refusal", async () => {
  const { asked, clock, open } = anEks();
  const cluster = open();
  const told = { server: ACTIVE.endpoint, certificateAuthorityData: "Q0E=" };
  expect(await Promise.all([cluster.endpoint(), cluster.endpoint()])).toEqual([told, told]);
  expect(asked).toEqual([{ name: "prod" }]);
  clock.now += MINUTE_MS;
  cluster.refuse();
  await cluster.endpoint();
  await cluster.endpoint();
  expect(asked).toHaveLength(2);
  clock.now += 5 * MINUTE_MS;
  await cluster.endpoint();

  expect(asked).toHaveLength(3);
});

it.each([
  [
    "may not be read",
    "AccessDeniedException",
    AUTH,
    /AccessDeniedException.*allow the function's role eks:DescribeCluster/,
  ],
  [
    "may not be read by the role",
    "AccessDeniedException",
    { ...AUTH, roleArn: ROLE },
    /allow the role arn:.*reader eks:Des/,
  ],
  [
    "is not there",
    "ResourceNotFoundException",
    AUTH,
    /prod in eu-central-1 does not exist: check clusterName and region/,
  ],
  ["is asked for too often", "ThrottlingException", AUTH, /EKS throttles eks:DescribeCluster; it is asked again/],
  ["is asked for in vain", "TimeoutError", AUTH, /EKS does not answer; it is asked again/],
])("says what to do when a cluster %s", async (_what, name, auth, message) => {
  const { open } = anEks([new AwsError(name)]);
  const asking = open(auth).endpoint();

  await expect(asking).rejects.toBeInstanceOf(UnreachableError);
  await expect(asking).rejects.toThrow(message);
  await expect(asking).rejects.not.toThrow("s3cr3t");
});

it.each([
  [
    "the role may not be assumed",
    "AccessDenied",
    ROLE,
    /reader cannot be assumed \(AccessDenied\): allow .* sts:AssumeRole/,
  ],
  ["STS does not answer", "TimeoutError", ROLE, /reader cannot be assumed \(TimeoutError\): STS does not answer/],
  ["there are no credentials", "CredentialsProviderError", undefined, /the function has no AWS credentials/],
])("says what to do when %s, for address and token", async (_what, name, roleArn, message) => {
  const { asked, open } = anEks([ACTIVE], async () => {
    throw new AwsError(name);
  });
  const cluster = open(roleArn === undefined ? AUTH : { ...AUTH, roleArn });

  await expect(cluster.endpoint()).rejects.toThrow(message);
  await expect(cluster.token()).rejects.toThrow(message);
  expect(asked).toEqual([]);
});

it("does not ask EKS again and again for what it refuses", async () => {
  const { asked, clock, open } = anEks([new AwsError("AccessDeniedException"), ACTIVE]);
  const cluster = open();
  for (let tried = 0; tried < 10; tried += 1) await expect(cluster.endpoint()).rejects.toThrow("AccessDenied");
  expect(asked).toHaveLength(1);
  clock.now += 5 * MINUTE_MS;

  expect(await cluster.endpoint()).toMatchObject({ server: ACTIVE.endpoint });
});

it("goes on with the address that it knows while EKS throttles", async () => {
  const { asked, clock, open } = anEks([ACTIVE, new AwsError("ThrottlingException")]);
  const cluster = open();
  await cluster.endpoint();
  clock.now += 29 * MINUTE_MS;
  expect(await cluster.endpoint()).toMatchObject({ server: ACTIVE.endpoint });
  expect(asked).toHaveLength(2);
  clock.now += 9_999;
  await cluster.endpoint();
  expect(asked).toHaveLength(2);
  clock.now += MINUTE_MS;

  await expect(cluster.endpoint()).rejects.toThrow("throttles");
});

it.each([
  ["is being made", { status: "CREATING" }, /has no address \(its status is CREATING\): wait until it is ACTIVE/],
  ["is not told of", undefined, /its status is unknown/],
  ["has a link-local address", { ...ACTIVE, endpoint: "https://169.254.169.254" }, /an address that is not called/],
  ["has an address without TLS", { ...ACTIVE, endpoint: "http://api.example" }, /an address that is not called/],
])("calls nobody when the cluster %s", async (_what, answer, message) => {
  await expect(anEks([answer]).open().endpoint()).rejects.toThrow(message);
});
