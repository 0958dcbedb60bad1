#!/usr/bin/env bash
# Starts training on Google Kubernetes Engine: writes a JobSet and gives it to kubectl.
# shellcheck source=tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
usage: tpu/gke.sh --name NAME --image IMAGE --topology CHIP:SHAPE --bucket BUCKET --config CONFIG [...] [key=value ...]

  --name NAME            what to call the JobSet
  --image IMAGE          made from tpu/Dockerfile, in a registry that the cluster can read
  --topology CHIP:SHAPE  of the node pool: v5e:2x4, v6e:4x4, v5p:2x2x2, v4:4x4x4
  --slices N             several slices of this shape, one node pool each
  --bucket BUCKET        seen as the folder /bucket, for data; the run goes to gs://BUCKET/runs/NAME
  --config CONFIG        configuration: configs/... as in the image, or /bucket/...
  --spot                 on spot nodes
  --dry-run              print the command and do nothing
  key=value              overrides of the configuration, such as data.folder=/bucket/data

Exit code 2: something is wrong with the command line; else that of kubectl.
END
}

name="" image="" topology="" slices="" bucket="" config="" spot="" dry_run=""
read_options "name image topology slices bucket config" "spot dry-run" key=value "$@"
refuse_missing name image topology bucket config
refuse_bad_names
[ ${#name} -le 40 ] || fail "--name: '$name' has ${#name} characters; 40 are allowed, since pods get longer names; choose another"
[[ "$bucket" =~ ^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$ ]] || fail "--bucket: '$bucket' given; the name of a bucket without gs:// is allowed; write it so"
[[ "$image" =~ ^[A-Za-z0-9][A-Za-z0-9._:/@-]*$ ]] || fail "--image: '$image' given; REGISTRY/NAME:TAG is allowed; write it so"
if [[ "$config" != /bucket/?* ]]; then
  [[ "$config" == configs/?* && "$config" != */../* ]] || fail "--config: '$config' is not in the image; configs/... or /bucket/... is allowed; copy it to the bucket"
  [ -f "$clone/$config" ] || fail "--config: no file '$config' in $clone; give one of configs/, or /bucket/..."
fi
read_topology
refuse_without kubectl https://kubernetes.io/docs/tasks/tools

# Nodes of a slice: up to 4 chips are one; 8 of v5e and v6e too, but slices that train together need several.
case "$chip" in
  v4) accelerator=tpu-v4-podslice ;;
  v5p) accelerator=tpu-v5p-slice ;;
  v5e) accelerator=tpu-v5-lite-podslice ;;
  v6e) accelerator=tpu-v6e-slice ;;
esac
slices=${slices:-1} chips_per_host=4
[ "$chips" -ge 4 ] || chips_per_host=$chips
if [ "$chips" = 8 ] && [ "$slices" = 1 ] && [[ "$chip" == v5e || "$chip" == v6e ]]; then chips_per_host=8; fi
hosts=$((chips / chips_per_host))
[ "$slices" = 1 ] || [ "$hosts" -gt 1 ] ||
  fail "--slices: $slices of $topology given; GKE joins slices of several hosts each only; take a larger shape, or one slice"

has_folder="" has_platform=""
for override in ${rest[@]+"${rest[@]}"}; do
  [[ "$override" != run.folder=* ]] || has_folder=yes
  [[ "$override" != run.platform=* ]] || has_platform=yes
done
[ -n "$has_folder" ] || rest+=("run.folder=gs://$bucket/runs/$name")
[ -n "$has_platform" ] || rest+=(run.platform=tpu)
arguments=""
for word in "$config" "${rest[@]}"; do # as JSON, which YAML reads
  [[ "$word" != *[[:cntrl:]]* ]] || fail "'${word%%=*}': its value has a line break or another control character; write it in the configuration file"
  arguments+=", \"$(printf '%s' "$word" | sed 's/[\\"]/\\&/g')\""
done

on_spot=""
[ -z "$spot" ] || on_spot='
              cloud.google.com/gke-spot: "true"
            tolerations:
            - {key: cloud.google.com/gke-spot, operator: Equal, value: "true", effect: NoSchedule}'

# Exit code 2 (wrong input) fails at once; all else starts all pods anew, and training goes on from its checkpoint.
# GKE tells each pod of the others: TPU_WORKER_ID, TPU_WORKER_HOSTNAMES and, with several slices, MEGASCALE_*.
manifest() {
  cat <<END
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: 20
    rules:
    - name: wrong_input
      action: FailJobSet
      onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
  - name: slice
    replicas: $slices
    template:
      spec:
        parallelism: $hosts
        completions: $hosts
        completionMode: Indexed
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes:
              containerName: train
              operator: In
              values: [2]
        template:
          metadata:
            annotations:
              gke-gcsfuse/volumes: "true"
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 300
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: $accelerator
              cloud.google.com/gke-tpu-topology: $shape$on_spot
            containers:
            - name: train
              image: $image
              args: [${arguments#, }]
              env:
              - name: HF_TOKEN
                valueFrom:
                  secretKeyRef: {name: hugging-face, key: token, optional: true}
              ports:
              - containerPort: 8471
              - containerPort: 8482
              - containerPort: 8483
              resources:
                limits:
                  google.com/tpu: $chips_per_host
              volumeMounts:
              - name: bucket
                mountPath: /bucket
                readOnly: true
            volumes:
            - name: bucket
              csi:
                driver: gcsfuse.csi.storage.gke.io
                readOnly: true
                volumeAttributes: {bucketName: $bucket, mountOptions: implicit-dirs}
END
}

printf "kubectl create -f - <<'END'\n%s\nEND\n" "$(manifest)"
[ -n "$dry_run" ] || manifest | kubectl create -f - || {
  code=$?
  printf 'error: %s: kubectl ended with exit code %s; where it is there already, kubectl delete jobset %s, then this again: the run goes on\n' \
    "$name" "$code" "$name" >&2
  exit "$code"
}
cat <<END
# To follow it: kubectl logs --follow --tail=-1 -l job-name=$name-slice-0,batch.kubernetes.io/job-completion-index=0
# To stop it, saved: kubectl delete jobset $name
# The chips go on costing money: gcloud container node-pools delete
END
