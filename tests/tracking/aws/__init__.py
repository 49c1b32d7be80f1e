"""A local AWS for tests that write to SageMaker Experiments.

moto serves what is not Experiments: S3, STS, IAM and the rest, from memory. Its Experiments check
nothing and forget everything, so those are answered here, from SQLite in a folder: what was written
outlives `kill -9`. Started by :mod:`tests.tracking.aws.fixture`, or by hand with
`python -m tests.tracking.aws --folder DIR`, which prints its port as a line of JSON.

Patterns, lengths, numbers of items and enumerations are those of botocore's model of the service.
Where AWS documents nothing, the stricter answer was chosen:

* A pattern must match the whole value, and `.` matches no line break: a message of two lines is
  refused. Members that the model does not have are refused.
* BatchPutMetrics takes the component's name in lower case only: so says its pattern.
* Names are found in the case they were created with; one that differs in case only "already
  exists". ARNs are in lower case.
* Associating a component with a trial that it is in already is refused ("already exists").
* 300 parameters and 60 artifacts are the most for a component, not for one call.
* A parameter has a number or a text, and no number is NaN or infinite.
* A metric that is no finite number is a VALIDATION_ERROR in Errors; the call's others are kept.
  A point again (component, metric, step, time) with the same value changes nothing, with another
  value is a VALIDATION_ERROR; with another time it is a second point, as a client must notice that
  sends again with new times. Metrics for a component that is not there: ResourceNotFound.
* BatchGetMetrics: points without a step are in no series by iteration; times are in whole seconds.
* A region that AWS does not have: "Credential should be scoped to a valid region". Signatures are
  not checked. Search shows what was just written at once, which AWS does not promise.
* Keys that AssumeRole of moto gave belong to that role's account, also after a restart; other keys
  to the account 123456789012; a temporary key that nobody gave is invalid.

`policy.json` in the folder, or `/_control/policy`, allows access keys what it names, as statements
of an IAM policy (`Action` and `Resource`, with wildcards): a key not in it may do everything.
Tags given with Create* need AddTags as well, as in AWS.
"""
