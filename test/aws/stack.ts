/** A packaged template as CloudFormation would make a stack of it: every reference resolved, nothing deployed. */
import * as z from "zod";

export interface StackSettings {
  readonly region: string;
  readonly account: string;
  readonly name: string;
  /** Where queue URLs begin. */
  readonly endpoint: string;
  /** Values of the template's parameters, where the defaults are not meant. */
  readonly parameters?: Readonly<Record<string, string>>;
}

/** A resource whose properties have no references any more. */
export interface StackResource {
  readonly logicalId: string;
  readonly type: string;
  readonly properties: Readonly<Record<string, unknown>>;
  /** What `Ref` gives. */
  readonly id: string;
  readonly arn: string;
}

export interface Stack extends StackSettings {
  readonly resources: readonly StackResource[];
}

const templateSchema = z.object({
  Parameters: z.record(z.string(), z.looseObject({ Default: z.coerce.string().optional() })).default({}),
  Conditions: z.record(z.string(), z.unknown()).default({}),
  Resources: z.record(
    z.string(),
    z.looseObject({
      Type: z.string(),
      Condition: z.string().optional(),
      Properties: z.record(z.string(), z.unknown()).default({}),
    }),
  ),
});
type Template = z.output<typeof templateSchema>;

const recordSchema = z.record(z.string(), z.unknown());

/** Throws at anything that it does not know: a reference that is guessed would prove nothing. */
export function resolveStack(template: unknown, settings: StackSettings): Stack {
  const parsed = templateSchema.parse(template);
  const resolver = createResolver(parsed, settings);
  const resources = Object.entries(parsed.Resources)
    .filter(([, { Condition }]) => Condition === undefined || resolver.isTrue(Condition))
    .map(([logicalId, { Type }]) => ({ logicalId, type: Type, ...resolver.physical(logicalId) }))
    .map((resource) => ({ ...resource, properties: resolver.propertiesOf(resource.logicalId) }));
  return { ...settings, resources };
}

/** The resource of that logical name. */
export function resourceOf({ resources }: Stack, logicalId: string): StackResource {
  const found = resources.find((resource) => resource.logicalId === logicalId);
  if (found === undefined) throw new Error(`the template has no resource ${logicalId}`);
  return found;
}

export function resourcesOf({ resources }: Stack, type: string): readonly StackResource[] {
  return resources.filter((resource) => resource.type === type);
}

interface Physical {
  readonly id: string;
  readonly arn: string;
}

function createResolver(template: Template, settings: StackSettings) {
  const { region, account } = settings;
  const pseudo: Readonly<Record<string, unknown>> = {
    "AWS::Region": region,
    "AWS::AccountId": account,
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": settings.name,
    "AWS::NoValue": undefined,
  };

  function physical(logicalId: string): Physical {
    const resource = template.Resources[logicalId];
    if (resource === undefined) throw new Error(`there is no resource ${logicalId}`);
    const { Type, Properties } = resource;
    const naming = NAMING[Type];
    const given = naming?.property === undefined ? undefined : resolve(Properties[naming.property]);
    const name = typeof given === "string" ? given : `${settings.name}-${logicalId}`;
    const arn = naming?.arn(name, settings) ?? `unknown-arn-of:${logicalId}`;
    return { id: naming?.id?.(name, arn, settings) ?? name, arn };
  }

  function ref(name: string): unknown {
    if (Object.hasOwn(pseudo, name)) return pseudo[name];
    const parameter = template.Parameters[name];
    if (parameter === undefined) return physical(name).id;
    const value = settings.parameters?.[name] ?? parameter.Default;
    if (value === undefined) throw new Error(`the parameter ${name} has no value`);
    return value;
  }

  function attribute(logicalId: string, name: string): unknown {
    const { id, arn } = physical(logicalId);
    if (name === "Arn" || name.endsWith("Arn")) return arn;
    if (name.endsWith("Name")) return arn.split(/[:/]/).at(-1);
    if (name.endsWith("Id")) return id;
    return `unknown-${name}-of:${logicalId}`;
  }

  function substitute(text: string, variables: Readonly<Record<string, unknown>>): string {
    return text.replaceAll(/\$\{([^!}][^}]*)\}/g, (_, expression: string) => {
      if (Object.hasOwn(variables, expression)) return String(variables[expression]);
      const [logicalId = "", ...path] = expression.split(".");
      return String(path.length === 0 ? ref(expression) : attribute(logicalId, path.join(".")));
    });
  }

  const isTrue = (condition: string): boolean => resolve(template.Conditions[condition]) === true;
  const list = (value: unknown): readonly unknown[] => z.array(z.unknown()).parse(resolve(value));
  const functions: Readonly<Record<string, (argument: unknown) => unknown>> = {
    Ref: (argument) => ref(String(argument)),
    Condition: (argument) => isTrue(String(argument)),
    "Fn::GetAtt": (argument) => {
      const [logicalId, ...path] =
        typeof argument === "string" ? argument.split(".") : z.array(z.string()).parse(argument);
      return attribute(logicalId ?? "", path.join("."));
    },
    "Fn::Sub": (argument) => {
      if (typeof argument === "string") return substitute(argument, {});
      const [text, variables] = z.tuple([z.string(), recordSchema]).parse(argument);
      return substitute(text, recordSchema.parse(resolve(variables)));
    },
    "Fn::Join": (argument) => {
      const [separator, parts] = z.tuple([z.string(), z.unknown()]).parse(argument);
      return list(parts).map(String).join(separator);
    },
    "Fn::Select": (argument) => {
      const [index, values] = z.tuple([z.coerce.number(), z.unknown()]).parse(argument);
      return list(values)[index];
    },
    "Fn::Split": (argument) => {
      const [separator, text] = z.tuple([z.string(), z.unknown()]).parse(argument);
      return String(resolve(text)).split(separator);
    },
    "Fn::If": (argument) => {
      const [condition, yes, no] = z.tuple([z.string(), z.unknown(), z.unknown()]).parse(argument);
      return resolve(isTrue(condition) ? yes : no);
    },
    "Fn::Equals": (argument) => {
      const [left, right] = list(argument);
      return left === right;
    },
    "Fn::Not": (argument) => list(argument)[0] !== true,
    "Fn::And": (argument) => list(argument).every((value) => value === true),
    "Fn::Or": (argument) => list(argument).some((value) => value === true),
  };

  function resolve(value: unknown): unknown {
    if (Array.isArray(value)) return value.map(resolve).filter((item) => item !== undefined);
    if (typeof value !== "object" || value === null) return value;
    const entries = Object.entries(value);
    const [[key, argument] = ["", undefined]] = entries;
    const isCall = entries.length === 1 && (key === "Ref" || key === "Condition" || key.startsWith("Fn::"));
    if (!isCall || (key === "Condition" && typeof argument !== "string")) {
      const resolved = entries.map(([name, item]): [string, unknown] => [name, resolve(item)]);
      return Object.fromEntries(resolved.filter(([, item]) => item !== undefined));
    }
    const apply = functions[key];
    if (apply === undefined) throw new Error(`${key} is not known here`);
    return apply(argument);
  }

  return {
    isTrue,
    physical,
    propertiesOf: (logicalId: string) => recordSchema.parse(resolve(template.Resources[logicalId]?.Properties ?? {})),
  };
}

interface Naming {
  /** The property that names the resource; CloudFormation makes a name up without it. */
  readonly property?: string;
  readonly arn: (name: string, settings: StackSettings) => string;
  /** What `Ref` gives, where that is not the name. */
  readonly id?: (name: string, arn: string, settings: StackSettings) => string;
}

const arnOf =
  (service: string, prefix = "") =>
  (name: string, { region, account }: StackSettings) =>
    `arn:aws:${service}:${region}:${account}:${prefix}${name}`;
const idIsArn = (_name: string, arn: string) => arn;

/** Of the types that others refer to. */
const NAMING: Readonly<Record<string, Naming>> = {
  "AWS::SQS::Queue": {
    property: "QueueName",
    arn: arnOf("sqs"),
    id: (name, _arn, { endpoint, account }) => `${endpoint}/${account}/${name}`,
  },
  "AWS::Events::EventBus": { property: "Name", arn: arnOf("events", "event-bus/") },
  "AWS::Lambda::Function": { property: "FunctionName", arn: arnOf("lambda", "function:") },
  "AWS::Logs::LogGroup": {
    property: "LogGroupName",
    arn: (name, settings) => `${arnOf("logs", "log-group:")(name, settings)}:*`,
  },
  "AWS::SNS::Topic": { property: "TopicName", arn: arnOf("sns"), id: idIsArn },
  "AWS::IAM::Role": { property: "RoleName", arn: (name, { account }) => `arn:aws:iam::${account}:role/${name}` },
  "AWS::S3::Bucket": { property: "BucketName", arn: (name) => `arn:aws:s3:::${name}` },
  "AWS::Events::Rule": { property: "Name", arn: arnOf("events", "rule/") },
  "AWS::Events::Archive": { property: "ArchiveName", arn: arnOf("events", "archive/") },
};
