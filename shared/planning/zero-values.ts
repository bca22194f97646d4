/**
 * Fields whose zero ("", false, 0) is nothing. Go holds them by value and marks them `omitempty`: it reads what is absent as the
 * zero, and drops the zero when it writes. So the revisions that KubeVirt's controller left behind, a pool that any Go client
 * has written, and each VM, whose spec KubeVirt's webhook writes anew, say less than their user wrote, and mean the same.
 *
 * A field that is a pointer says something with a zero, such as `autoattachGraphicsDevice: false` or `storageClassName: ""`. It
 * is not listed, nor is a name that nobody knows: what is not listed counts.
 *
 * Source: all that is reachable from VirtualMachineTemplateSpec of kubevirt.io/api v1.6.0, v1.7.0 and v1.8.1, with
 * kubevirt.io/containerized-data-importer-api v1.60.3 to v1.64.0 and k8s.io/api v0.32.5 to v0.34.3, by reflection. Left out is
 * what only the cluster writes into metadata.
 */
export const NOTHING_WHEN_ZERO: ReadonlySet<string> = new Set([
  ...["acpiIndex", "action", "apiVersion", "architecture", "asset", "backingFile", "bootFileName", "bus"],
  ...["cache", "containerName", "contentType", "cores", "dedicatedCpuPlacement", "default", "deviceName"],
  ...["dhCert", "disableHotplug", "dnsPolicy", "effect", "endOfInterrupt", "extraArgs", "failureThreshold"],
  ...["finalCheckpoint", "hidden", "host", "hostname", "hotpluggable", "imagePullPolicy", "imagePullSecret"],
  ...["inferFromVolume", "initImageURL", "initialDelaySeconds", "initrdPath", "io", "isolateEmulatorThread"],
  ...["kernelArgs", "kernelPath", "key", "kind", "logical", "macAddress", "manufacturer", "mask", "maxSockets"],
  ...["msdmNameRef", "name", "networkData", "networkDataBase64", "operator", "overcommitGuestOverhead"],
  ...["pageSize", "path", "pciAddress", "periodSeconds", "physical", "policy", "priorityClassName", "protocol"],
  ...["reservation", "revisionName", "schedulerName", "scheme", "secretName", "serial", "serviceAccountName"],
  ...["session", "sku", "slicNameRef", "sockets", "state", "subdomain", "successThreshold", "tag"],
  ...["tftpServerName", "threads", "thumbprint", "tickPolicy", "timeoutSeconds", "track", "tray", "userData"],
  ...["userDataBase64", "uuid", "vendorid", "version", "vmIPv6NetworkCIDR", "vmNetworkCIDR", "volumeLabel"],
  ...["volumeName"],
  // Pointers, or unlike in another way, where another field holds them: only these.
  ...["http/certConfigMap", "s3/certConfigMap", "imageio/certConfigMap", "cpu/model", "interfaces/model"],
  ...["sound/model", "metadata/namespace", "persistentVolumeClaim/readOnly", "memoryDump/readOnly"],
  ...["utilityVolumes/readOnly", "disk/readonly", "lun/readonly", "http/secretRef", "s3/secretRef"],
  ...["gcs/secretRef", "imageio/secretRef", "vddk/secretRef", "video/type", "vddk/url", "tolerations/value"],
  // Not `omitempty`, and optional all the same: Go writes a zero that nobody wrote.
  ...["machine/type", "hostDisk/capacity", "resourceFieldRef/divisor"],
]);
