/** What `npm run cluster -- --help` shows. */
export const CLUSTER_HELP = `Usage: npm run cluster -- add NAME CREDENTIALS [options]
       npm run cluster -- list | show NAME
       npm run cluster -- check NAME [options]
       npm run cluster -- mode NAME observe|act [options]
       npm run cluster -- rotate NAME [--drop-old | --drop-new] [options]
       npm run cluster -- credentials NAME CREDENTIALS
       npm run cluster -- remove NAME [options]

add          registers a cluster in mode observe, makes the secrets of its senders, and prints what the cluster needs as
             YAML on standard output (npm run --silent, so that nothing else stands there) or applies it (--apply)
list, show   what is registered; never a secret
check        says whether the cluster can be reached, whether the functions have every right that they need there,
             whether KubeVirt's own pool controller is seen to run, and with --events what tells of changes
mode         has the functions only plan and report in the cluster (observe), or do what they plan (act). act is
             refused while check finds anything against it; observe never is
rotate       makes new secrets, valid beside the old ones; --drop-old ends the old ones, --drop-new undoes it
credentials  changes how the cluster is reached, and nothing else
remove       takes the cluster out of the registry

Functions that run take changes up within five minutes.

Where clusters are registered:
      --registry PATH            a file (default: registry.json in --dir)
      --dir PATH                 folder of npm start (default .local)
      --ssm-prefix PREFIX        SSM parameters below PREFIX, such as /vmpool-functions/clusters
      --region REGION            AWS region of those, and of --eks (default: as the AWS SDK finds it)

CREDENTIALS, one of:
      --eks CLUSTER              a cluster of EKS, by the functions' own role; server and authority are those EKS tells
          --eks-region REGION      where it is (default: --region)
          --role-arn ARN           a role to assume first
      --from-context CONTEXT     what a context of a kubeconfig holds: a token or a client certificate
          --kubeconfig PATH        (default: $KUBECONFIG, then ~/.kube/config)
          --service-account        with --apply: makes a ServiceAccount with those rights and registers its token instead
      --server URL --token-file PATH | --token-stdin
      --server URL --client-certificate PATH --client-key PATH
          --certificate-authority PATH  of the server (default: public authorities)

Options of add:
      --namespaces A,B           serve these namespaces only
      --source A,B               what tells of changes (default admission): admission, audit, knative, bearer,
                                 standard-webhooks, gke, oidc; none leaves it to the schedule
      --oidc-subject, --oidc-issuer, --oidc-audience TEXT
                                 who signs in for gke and oidc (knative: only --oidc-issuer, if it cannot be asked for)
      --replace                  register a known NAME anew, with new secrets

Options of add and rotate:
      --endpoint URL             https address of the deployed API (default: that of a running npm start)
      --ca-bundle PATH           authority of the endpoint, if it is no public one
      --no-user-roles            add: no rights to scale pools for admins and editors of namespaces
      --apply                    send the objects to the cluster (server-side apply)
          --kubeconfig PATH --context NAME   with these rights

Options of check and mode:
      --kubeconfig PATH          look for KubeVirt's controller with these rights, not with the functions' own: those do
                                 not reach Deployments
      --context NAME             context of the kubeconfig (default: its current one)
      --events                   check: make a paused pool of no machines with these rights, wait for the notice of it,
                                 and delete it
          --namespace NAME         of that pool (default: the first that is served, else default)
          --wait-seconds N         for the notice (default 30)
          --log-groups PREFIX      where the functions log on AWS (default: /aws/lambda/vmpool-functions-prod-)
  -o, --output FORMAT            of check, list and show: text (default) or json

Options of remove:
  -y, --yes                      do not ask
      --apply                    delete what add gave to the cluster, too, with --kubeconfig and --context

  -h, --help                     show this

Examples:
  npm run --silent cluster -- add prod-eu --eks prod-eu --region eu-west-1 --ssm-prefix /vmpool-functions/clusters \\
    --endpoint https://abc123.execute-api.eu-west-1.amazonaws.com | kubectl apply --server-side -f -
  npm run cluster -- add lab --from-context admin@lab --service-account --apply
  kubectl create token vmpool-functions -n vmpool-functions | npm run cluster -- credentials lab \\
    --server https://lab.example:6443 --certificate-authority ca.crt --token-stdin
  npm run cluster -- check lab --kubeconfig ~/.kube/config --events
  npm run cluster -- mode lab act
  npm run cluster -- rotate lab --apply && npm run cluster -- rotate lab --drop-old

Exit codes:
  0   check: nothing against acting was found; otherwise: done
  1   check: something was found, or the cluster cannot be used; mode: refused for that, nothing is changed; add, rotate,
      remove: the cluster has refused something, or you said no; list, show: an entry is not valid
  2   an error: no such cluster, a registry that cannot be read, a wrong option
`;
