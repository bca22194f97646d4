/** The judge of permissions, before it judges anybody. */
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the placeholders are CloudFormation's.
import { describe, expect, it } from "vitest";
import { isAllowed, rolesOf, type Statement, unusedPermissions } from "./iam.ts";
import { resolveStack } from "./stack.ts";

const QUEUE = "arn:aws:sqs:eu-central-1:123456789012:passes.fifo";
const CLUSTERS = "arn:aws:ssm:eu-central-1:123456789012:parameter/clusters";

function allow(Action: string[], Resource: string[], Condition?: Statement["Condition"]): Statement {
  return { Effect: "Allow", Action, Resource, ...(Condition === undefined ? {} : { Condition }) };
}

describe("a call is allowed", () => {
  it.for([
    { why: "by its name and resource", statements: [allow(["sqs:SendMessage"], [QUEUE])] },
    { why: "whatever the case of the action", statements: [allow(["SQS:sendmessage"], [QUEUE])] },
    { why: "by a wildcard of the action", statements: [allow(["sqs:Send*"], [QUEUE])] },
    { why: "by wildcards of the resource", statements: [allow(["sqs:SendMessage"], ["arn:aws:sqs:*:*:passes.fif?"])] },
    { why: "by one statement of many", statements: [allow(["sqs:*"], ["other"]), allow(["sqs:SendMessage"], [QUEUE])] },
  ])("$why", ({ statements }) => {
    expect(isAllowed(statements, { action: "sqs:SendMessage", resource: QUEUE })).toBe(true);
  });

  it("under its condition only", () => {
    const statements = [allow(["events:PutEvents"], ["*"], { StringEquals: { "events:source": ["a", "b"] } })];
    const call = { action: "events:PutEvents", resource: "bus" };
    expect(isAllowed(statements, { ...call, context: { "events:source": "b" } })).toBe(true);
    expect(isAllowed(statements, { ...call, context: { "events:source": "c" } })).toBe(false);
    expect(isAllowed(statements, call)).toBe(false);
  });
});

it("is judged by what it is not, too", () => {
  const statements = [allow(["*"], ["*"], { ArnNotLike: { "aws:PrincipalArn": ["arn:aws:iam::1:role/a*"] } })];
  const call = { action: "events:PutEvents", resource: "bus" };
  expect(isAllowed(statements, { ...call, context: { "aws:PrincipalArn": "arn:aws:iam::1:role/b" } })).toBe(true);
  expect(isAllowed(statements, { ...call, context: { "aws:PrincipalArn": "arn:aws:iam::1:role/ab" } })).toBe(false);
  expect(isAllowed(statements, call)).toBe(true);
});

describe("a call is denied", () => {
  const call = { action: "ssm:GetParameter", resource: `${CLUSTERS}/west/access` };

  it.for([
    { why: "when nothing is said", statements: [] },
    { why: "for another action", statements: [allow(["ssm:GetParameters"], ["*"])] },
    { why: "for another resource", statements: [allow(["ssm:GetParameter"], [`${CLUSTERS}/*/webhook`])] },
    {
      why: "when a dot is no wildcard",
      statements: [allow(["ssm:GetParameter"], [call.resource.replaceAll("/", ".")])],
    },
    {
      why: "by an explicit denial",
      statements: [allow(["*"], ["*"]), { ...allow(["ssm:*"], ["*"]), Effect: "Deny" as const }],
    },
  ])("$why", ({ statements }) => {
    expect(isAllowed(statements, call)).toBe(false);
  });

  it("loudly where the condition is not understood", () => {
    const statements = [allow(["*"], ["*"], { IpAddress: { "aws:SourceIp": ["192.0.2.0/24"] } })];
    expect(() => isAllowed(statements, call)).toThrow("IpAddress");
  });
});

it("names each action and resource that no call needs", () => {
  const statements = [allow(["sqs:SendMessage", "sqs:PurgeQueue"], [QUEUE, "arn:aws:sqs:::other"])];
  expect(unusedPermissions(statements, [{ action: "sqs:SendMessage", resource: QUEUE }])).toEqual([
    { action: "sqs:SendMessage", resource: "arn:aws:sqs:::other" },
    { action: "sqs:PurgeQueue", resource: QUEUE },
    { action: "sqs:PurgeQueue", resource: "arn:aws:sqs:::other" },
  ]);
});

it("reads roles out of a template, with all references resolved", () => {
  const statement = (Action: string, Resource: unknown) => ({ Effect: "Allow", Action, Resource });
  const document = (...Statement: unknown[]) => ({ Version: "2012-10-17", Statement });
  const assumed = {
    Statement: [{ Effect: "Allow", Principal: { Service: "lambda.amazonaws.com" }, Action: "sts:AssumeRole" }],
  };
  const template = {
    Parameters: { Prefix: { Default: "/clusters" } },
    Conditions: { IsOwn: { "Fn::Equals": [{ Ref: "Prefix" }, "/clusters"] } },
    Resources: {
      Queue: { Type: "AWS::SQS::Queue", Properties: { QueueName: { "Fn::Sub": "${AWS::StackName}.fifo" } } },
      Role: {
        Type: "AWS::IAM::Role",
        Properties: {
          AssumeRolePolicyDocument: assumed,
          Policies: [
            {
              PolicyName: "own",
              PolicyDocument: document(
                statement("sqs:SendMessage", { "Fn::GetAtt": ["Queue", "Arn"] }),
                statement("ssm:GetParameter", {
                  "Fn::Join": [
                    ":",
                    [
                      "arn",
                      { Ref: "AWS::Partition" },
                      "ssm",
                      { "Fn::Sub": "*:${AWS::AccountId}:parameter${Prefix}/*" },
                    ],
                  ],
                }),
                statement("eks:DescribeCluster", { "Fn::If": ["IsOwn", "own", "other"] }),
              ),
            },
          ],
        },
      },
      More: {
        Type: "AWS::IAM::Policy",
        Properties: {
          Roles: [{ Ref: "Role" }],
          PolicyName: "more",
          PolicyDocument: document(statement("a:b", { "Fn::Sub": "${Queue.Arn}/x" })),
        },
      },
    },
  };
  const stack = resolveStack(template, {
    region: "eu-central-1",
    account: "123456789012",
    name: "pools",
    endpoint: "http://aws",
  });
  expect(rolesOf(stack)).toMatchObject([
    {
      arn: "arn:aws:iam::123456789012:role/pools-Role",
      principals: ["lambda.amazonaws.com"],
      statements: [
        { Resource: ["arn:aws:sqs:eu-central-1:123456789012:pools.fifo"] },
        { Resource: ["arn:aws:ssm:*:123456789012:parameter/clusters/*"] },
        { Resource: ["own"] },
        { Resource: ["arn:aws:sqs:eu-central-1:123456789012:pools.fifo/x"] },
      ],
    },
  ]);
});
