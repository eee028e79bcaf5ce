# The Amazon image of the parent instance.
#
# What the image cannot say of itself is said when it is registered and launched:
#   aws ec2 register-image … --imds-support v2.0 --ena-support --virtualization-type hvm
#   aws ec2 run-instances … --enclave-options Enabled=true \
#     --metadata-options HttpTokens=required,HttpPutResponseHopLimit=1
# The first makes version 2 of the instance metadata service the only one that instances of this image have.
{
  # nixosConfigurations.parent
  parent,
}:
parent.config.system.build.images.amazon
