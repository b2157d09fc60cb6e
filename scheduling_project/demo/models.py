"""The demo's small warehouse."""

from __future__ import annotations

from django.db import models


class Sale(models.Model):
    """One sale of one shop; loading it twice changes nothing."""

    order_id = models.CharField(max_length=60, primary_key=True)
    shop = models.CharField(max_length=40)
    day = models.DateField()
    cents = models.PositiveIntegerField()
    loaded_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.order_id


class Product(models.Model):
    """What the warehouse holds of a product."""

    name = models.CharField(max_length=60, primary_key=True)
    units = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    """One order that came by webhook. Its id makes every step of it repeatable."""

    order_id = models.CharField(max_length=60, primary_key=True)
    product = models.ForeignKey(Product, on_delete=models.CASCADE)
    units = models.PositiveIntegerField()
    state = models.CharField(max_length=20, default="reserved")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.order_id
