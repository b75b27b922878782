from __future__ import annotations

from slipway.registry.ecr.policies import lifecycle_policy, merged_policy, pull_statements


def test_consumers_and_sagemaker_may_pull_and_nothing_else() -> None:
    accounts, service = pull_statements("aws-cn", ["222222222222", "111111111111"], True)
    assert accounts["Principal"] == {
        "AWS": ["arn:aws-cn:iam::111111111111:root", "arn:aws-cn:iam::222222222222:root"]
    }
    assert service["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    for statement in (accounts, service):
        assert statement["Effect"] == "Allow"
        assert set(statement["Action"]) == {
            "ecr:BatchCheckLayerAvailability",
            "ecr:BatchGetImage",
            "ecr:GetDownloadUrlForLayer",
        }


def test_statements_of_others_stay_and_ours_are_replaced() -> None:
    theirs = {"Sid": "Theirs", "Effect": "Deny"}
    old = {
        "Version": "2008-10-17",
        "Statement": [theirs, *pull_statements("aws", ["1" * 12], False)],
    }
    new = merged_policy(old, pull_statements("aws", ["2" * 12], False))
    assert new["Version"] == "2008-10-17"
    assert new["Statement"] == [theirs, *pull_statements("aws", ["2" * 12], False)]
    assert merged_policy(new, pull_statements("aws", ["2" * 12], False)) == new


def test_a_policy_of_one_bare_statement_is_kept() -> None:
    theirs = {"Effect": "Deny"}
    ours = pull_statements("aws", [], True)
    assert merged_policy({"Statement": theirs}, ours)["Statement"] == [theirs, *ours]
    assert merged_policy(None, ours) == {"Version": "2012-10-17", "Statement": ours}


def test_only_what_nobody_can_name_expires() -> None:
    rules = lifecycle_policy()["rules"]
    assert [rule["rulePriority"] for rule in rules] == [1, 2]
    assert [rule["selection"]["tagStatus"] for rule in rules] == ["tagged", "untagged"]
    assert rules[0]["selection"]["tagPatternList"] == ["slipway-staging-*"]
    assert all(rule["selection"]["countType"] == "sinceImagePushed" for rule in rules)
    assert {rule["action"]["type"] for rule in rules} == {"expire"}
